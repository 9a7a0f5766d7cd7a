"""Reading the chain: headers with the logs that belong to exactly those blocks, or an error; never a mixture."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from everlease.chain.base import ChainReader, Header, Log
from everlease.chain.errors import RpcRefused, TooManyResults
from everlease.domain.mirrored import MirroredBlock

MAX_SPAN = 5000


class Inconsistent(Exception):
    """Headers and logs don't belong together: the chain was reorganised while it was read. Read again."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive blocks up to ``blocks[-1]`` with all their logs; from ``range`` only the blocks that matter."""

    blocks: tuple[MirroredBlock, ...]
    logs: tuple[Log, ...]


def mirrored(header: Header) -> MirroredBlock:
    """A header as the mirror keeps it."""
    return MirroredBlock(header.number, header.hash, header.parent_hash, header.timestamp)


class Source:
    """Logs of two contracts. ``span`` adapts: halved when an answer is too large, doubled when one was fine."""

    def __init__(self, chain: ChainReader, addresses: Sequence[str], *, span: int = 1000) -> None:
        self._chain = chain
        self._addresses = tuple(addresses)
        self.span = span

    def range(self, first: int, last: int) -> Batch:
        """Blocks first..last or fewer, for blocks that are final: those with logs, and the last one."""
        while True:
            end = min(last, first + self.span - 1)
            try:
                logs = self._chain.logs(self._addresses, first, end)
            except TooManyResults:
                if self.span == 1:
                    return self.blocks(first, first)
                self.span = max(1, self.span // 2)
                continue
            self.span = min(self.span * 2, MAX_SPAN)
            break
        numbers = sorted({log.block_number for log in logs} | {end})
        blocks = self._headers(numbers)
        hashes = {block.number: block.hash for block in blocks}
        if any(hashes.get(log.block_number) != log.block_hash for log in logs):
            raise Inconsistent(f"logs and headers of blocks {first} to {end} differ")
        return Batch(blocks, tuple(logs))

    def blocks(self, first: int, last: int) -> Batch:
        """Every block first..last, linked, with the logs of exactly these hashes."""
        blocks = self._headers(range(first, last + 1))
        for parent, child in pairwise(blocks):
            if child.parent_hash != parent.hash:
                raise Inconsistent(f"block {child.number} doesn't follow block {parent.number}")
        logs: list[Log] = []
        for block in blocks:
            try:
                found = self._chain.logs_of(self._addresses, block.hash)
            except TooManyResults:
                raise
            except RpcRefused as error:
                raise Inconsistent(f"block {block.number} vanished while it was read") from error
            if any(log.block_hash != block.hash for log in found):
                raise Inconsistent(f"logs of block {block.number} are of another block")
            logs += found
        return Batch(blocks, tuple(logs))

    def _headers(self, numbers: Sequence[int]) -> tuple[MirroredBlock, ...]:
        headers = self._chain.headers(numbers)
        if any(header is None for header in headers):
            raise Inconsistent("a block that was there is gone")
        return tuple(mirrored(header) for header in headers if header is not None)
