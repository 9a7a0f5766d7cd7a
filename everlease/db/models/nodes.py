"""Nodes as the gateway knows them, and the commands that wait for them."""

from sqlalchemy import ColumnElement, Index, UniqueConstraint, and_
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from everlease.db.models.base import (
    Address,
    AddressKey,
    Base,
    BigInt,
    CreatedAt,
    Hex32,
    Instant,
    Json,
    JsonList,
    LongText,
    Serial,
)


class NodeRow(Base):
    """One node: its facts, its session at the gateway, its record. ``last_seen`` is the gateway's clock.

    ``restarting_at``: when it said in this session that its agent is about to be started anew; ``restarts``: the times
    (unix seconds) of the last day at which it said so, whether they counted or not. ``facts_at``: when its telling
    other facts counts for jobs that wait, which may be yet to come. ``network``: from where it came last (an IPv4
    address, an IPv6 /64). ``gateway``: the id of the gateway that holds the session's socket; ``severed_at``: when that
    gateway ended under it, or was found gone. The node has not been heard since, which says nothing about its host.
    """

    __tablename__ = "node"

    address: Mapped[AddressKey]
    provider: Mapped[Address] = mapped_column(index=True)
    network: Mapped[str] = mapped_column(default="")
    sealing_key: Mapped[str]
    facts: Mapped[Json]
    facts_at: Mapped[Instant | None]
    version: Mapped[str]
    session: Mapped[str | None]
    connected_at: Mapped[Instant | None]
    disconnected_at: Mapped[Instant | None]
    gateway: Mapped[int | None]
    severed_at: Mapped[Instant | None]
    last_seen: Mapped[Instant | None] = mapped_column(index=True)
    probe_sent_at: Mapped[Instant | None]
    liveness: Mapped[str] = mapped_column(default="ALIVE")
    draining: Mapped[bool] = mapped_column(default=False)
    restarting_at: Mapped[Instant | None]
    restarts: Mapped[JsonList] = mapped_column(default=list)
    losses: Mapped[int] = mapped_column(default=0)
    served_s: Mapped[float] = mapped_column(default=0.0)
    shun_until: Mapped[Instant | None]
    created_at: Mapped[CreatedAt]

    @hybrid_property
    def connected(self) -> bool:
        """Whether its session has a socket at a gateway."""
        return self.session is not None and self.disconnected_at is None and self.severed_at is None

    @connected.inplace.expression
    @classmethod
    def _connected(cls) -> ColumnElement[bool]:
        return and_(cls.session.is_not(None), cls.disconnected_at.is_(None), cls.severed_at.is_(None))


class CommandRow(Base):
    """A command to a node: written by recovery, sent by the gateway, answered by the node. ``step`` makes it one."""

    __tablename__ = "command"
    __table_args__ = (
        UniqueConstraint("job_id", "step"),
        Index("ix_command_node_open", "node", postgresql_where="finished_at IS NULL"),
    )

    id: Mapped[Serial]
    node: Mapped[Address]
    job_id: Mapped[Hex32]
    fence: Mapped[BigInt]
    step: Mapped[str]
    kind: Mapped[str]
    payload: Mapped[Json]
    created_at: Mapped[CreatedAt]
    deadline: Mapped[Instant]
    sent_at: Mapped[Instant | None]
    finished_at: Mapped[Instant | None]
    ok: Mapped[bool | None]
    error: Mapped[LongText] = mapped_column(default="")
    retryable: Mapped[bool] = mapped_column(default=False)
    result: Mapped[Json] = mapped_column(default=dict)
    handled_at: Mapped[Instant | None]


class ZombieRow(Base):
    """What a node tried under a stale fence, counted by kind: the evidence that it was refused."""

    __tablename__ = "zombie_attempt"
    __table_args__ = (UniqueConstraint("job_id", "node", "fence", "kind"),)

    id: Mapped[Serial]
    job_id: Mapped[Hex32]
    node: Mapped[Address]
    fence: Mapped[BigInt]
    kind: Mapped[str]
    refused: Mapped[BigInt] = mapped_column(default=0)
