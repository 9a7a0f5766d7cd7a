"""While one range is written, the next is read and decoded.

What was read ahead is a guess: it counts only if it is what is asked for next and the chain still has its last block,
and the follower checks that it continues the mirror, as it would any other batch.
"""

from concurrent.futures import Executor, Future
from dataclasses import dataclass

from everlease.chain._generated.events import Event
from everlease.db import mirror
from everlease.domain.mirrored import MirroredBlock, MirroredEvent
from indexer.decoding import decode
from indexer.source import Batch, Source


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch with its events, and ``lines`` of them to be written; see indexer.source.Batch."""

    blocks: tuple[MirroredBlock, ...]
    events: list[tuple[MirroredEvent, Event]]
    lines: list[str]
    parent_hash: str


class ReadAhead:
    """Reads final ranges and live blocks. ``executor`` reads ahead, one range and no more; None reads when asked."""

    def __init__(self, source: Source, executor: Executor | None) -> None:
        self._source = source
        self._executor = executor
        self._next: tuple[int, Future[Decoded]] | None = None

    def range(self, first: int, last: int) -> Decoded:
        """Final blocks first..last or fewer; raises what reading raises, also what reading ahead raised."""
        found = self._taken(first) or self._read(first, last)
        after = found.blocks[-1].number + 1
        if self._executor is not None and after <= last:
            self._next = after, self._executor.submit(self._read, after, last)
        return found

    def blocks(self, first: int, last: int) -> Decoded:
        """Blocks first..last that may be reorganised yet: read now."""
        self.drop()
        return _decoded(self._source.blocks(first, last))

    def drop(self) -> None:
        """Forget what was read ahead; waits for a read that has begun, so that no two use the source at once."""
        if self._next is not None:
            _, future = self._next
            self._next = None
            if not future.cancel():
                future.exception()

    def _taken(self, first: int) -> Decoded | None:
        """What was read ahead, if it starts at ``first`` and was not reorganised away since."""
        if self._next is None or self._next[0] != first:
            self.drop()
            return None
        _, future = self._next
        self._next = None
        found = future.result()
        return found if self._source.has(found.blocks[-1]) else None

    def _read(self, first: int, last: int) -> Decoded:
        return _decoded(self._source.range(first, last))


def _decoded(batch: Batch) -> Decoded:
    events = decode(batch.logs, {block.number: block for block in batch.blocks})
    return Decoded(batch.blocks, events, mirror.lines(at for at, _ in events), batch.parent_hash)
