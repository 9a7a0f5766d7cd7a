"""When parts of the market were down, as the marketplace and recovery saw it themselves."""

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from everlease.db.models.base import Base, Instant, Serial


class OutageRow(Base):
    """``part`` (gateway, database, chain, store) was down from ``began_at`` until ``seen_at`` at least."""

    __tablename__ = "outage"
    __table_args__ = (Index("ix_outage_seen_at", "seen_at"),)

    id: Mapped[Serial]
    part: Mapped[str]
    began_at: Mapped[Instant]
    seen_at: Mapped[Instant]


class LookRow(Base):
    """One row: when any monitor last looked, so that whoever takes over knows it."""

    __tablename__ = "look"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[Instant]
