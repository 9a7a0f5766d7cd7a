"""Commands to a node. Each carries (job, fence, step); a node does a step once and repeats its recorded answer.

``checkpoint_requirements`` is what a process checkpoint needs of its host (None: nothing is restored from one): a node
that lacks it refuses before it fetches, with ``unfit`` in the result.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from everlease.wire.base import Address, Cid, Count, Hex32, Message, Open, Sentence, Short, Units


class Command(Message):
    """``step`` is unique per job; ``timeout_s`` is how long the sender waits before it counts the step as failed."""

    job_id: Hex32
    fence: int = Field(ge=1)
    step: Short
    timeout_s: float = Field(default=60, gt=0, le=7200)


class Prepare(Command):
    """Fetch image and blocks (sealed, without the key), create the network; may run before ``open`` is mined.

    ``lease_id`` and ``rate_per_hour``: the lease that an award makes of the node's bid; None ahead of a migration.
    """

    kind: Literal["prepare"] = "prepare"
    lease_id: Hex32 | None = None
    rate_per_hour: Units | None = None
    spec: dict[str, Any]
    image_manifest: Cid | None = None
    image_archive_bytes: int = 0
    checkpoint: Cid | None = None
    block_cids: list[Cid] = Field(default_factory=list, max_length=200_000)
    checkpoint_requirements: Open | None = None
    store_token: str = Field(max_length=4096)


class Start(Command):
    """Run the workload: fresh, or from the checkpoint whose manifest is ``checkpoint``.

    ``keys`` maps generations to keys sealed to this node's X25519 key (libsodium sealed box, base64);
    ``dedup_secret`` is sealed alike. New checkpoints are sealed under ``generation``. ``checkpoint_node`` is who
    committed the checkpoint: its manifest must bear that node's signature. ``wait_s``: nothing runs sooner than so many
    seconds after the command came, by a clock that nobody sets: only then is the former host fenced for certain.
    """

    kind: Literal["start"] = "start"
    lease_id: Hex32
    epoch: int = Field(ge=1)
    rate_per_hour: Units
    spec: dict[str, Any]
    checkpoint: Cid | None = None
    checkpoint_seq: int = 0
    checkpoint_node: Address | None = None
    checkpoint_requirements: Open | None = None
    mode: Literal["process", "files"]
    generation: int = Field(ge=1)
    keys: dict[int, str]
    dedup_secret: str
    store_token: str = Field(max_length=4096)
    wait_s: float = Field(default=0.0, ge=0)
    max_silence: float
    mtbf_s: float


class TakeCheckpoint(Command):
    """Checkpoint now. ``hold``: leave the workload frozen afterwards (drain, migrate, hibernate)."""

    kind: Literal["checkpoint"] = "checkpoint"
    hold: bool = False


class Thaw(Command):
    """Go on where the workload was frozen; ``new_fence`` replaces ``fence`` for this container."""

    kind: Literal["thaw"] = "thaw"
    new_fence: int


class Freeze(Command):
    """Freeze at once and stay so: the award is void."""

    kind: Literal["freeze"] = "freeze"


class Stop(Command):
    """Stop (SIGTERM, then SIGKILL after ``grace_s``) and remove every trace of the job but cached blocks and image."""

    kind: Literal["stop"] = "stop"
    grace_s: float = Field(default=10, ge=0, le=600)


class Restart(Command):
    """After a non-zero exit: start again on the spot from the last committed checkpoint."""

    kind: Literal["restart"] = "restart"
    checkpoint: Cid | None = None
    checkpoint_seq: int = 0
    checkpoint_node: Address | None = None
    checkpoint_requirements: Open | None = None


AnyCommand = Annotated[Prepare | Start | TakeCheckpoint | Thaw | Freeze | Stop | Restart, Field(discriminator="kind")]


class CommandResult(Message):
    """A node's answer. ``result`` depends on the kind: timings in seconds, the manifest's CID, an exit code."""

    type: Literal["result"] = "result"
    job_id: Hex32
    fence: Count
    step: Short
    ok: bool
    error: Sentence = ""
    retryable: bool = False
    result: Open = Field(default_factory=dict)
