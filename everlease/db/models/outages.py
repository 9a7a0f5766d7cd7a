"""When parts of the market were down, as recovery itself saw it."""

from sqlalchemy import Index
from sqlalchemy.orm import Mapped

from everlease.db.models.base import Base, Instant, Serial


class OutageRow(Base):
    """``part`` (gateway, database, chain) was down from ``began_at`` until ``seen_at`` at least."""

    __tablename__ = "outage"
    __table_args__ = (Index("ix_outage_seen_at", "seen_at"),)

    id: Mapped[Serial]
    part: Mapped[str]
    began_at: Mapped[Instant]
    seen_at: Mapped[Instant]
