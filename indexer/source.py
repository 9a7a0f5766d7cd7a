"""Reading the chain: headers with the logs that belong to exactly those blocks, or an error; never a mixture.

An endpoint that lags behind the one that gave the headers answers a range of blocks that it lacks with no logs and no
error. So every header is read, each must follow the one before it, and where a header's bloom says that there may be
logs of ours but none came, they are asked for by the block's hash, which a node without the block must refuse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from everlease.chain._generated.events import EVENTS
from everlease.chain.base import ChainReader, Header, Log
from everlease.chain.bloom import may_hold
from everlease.chain.errors import RpcRefused, TooManyResults
from everlease.domain.mirrored import MirroredBlock

MAX_SPAN = 5000
EVENTS_PER_STEP = 4000
"""Enough logs for one batch, so that memory does not grow with the chain."""
_LOGS_PER_ANSWER = 1000
"""What is asked for at once: an answer of about 1 MB. Larger ones cost more per log, here and at the node."""
_FIRST_SPAN = 16
_ASKED_AGAIN = 2
"""How often a block that may hold logs is asked for them before "none" is believed (blooms have false positives)."""
_TOPICS = tuple(EVENTS)


class Inconsistent(Exception):
    """Headers and logs don't belong together: the chain was reorganised while it was read. Read again."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive blocks up to ``blocks[-1]`` with all their logs; from ``range`` only the blocks that matter.

    ``parent_hash``: of the first block that was read, whether or not it matters.
    """

    blocks: tuple[MirroredBlock, ...]
    logs: tuple[Log, ...]
    parent_hash: str


def mirrored(header: Header) -> MirroredBlock:
    """A header as the mirror keeps it."""
    return MirroredBlock(header.number, header.hash, header.parent_hash, header.timestamp)


class Source:
    """Logs of two contracts. ``span``, the blocks asked for at once, adapts to how many logs they hold; a batch ends
    with the block that brings it to ``events_per_step`` logs."""

    def __init__(self, chain: ChainReader, addresses: Sequence[str], *, events_per_step: int = EVENTS_PER_STEP) -> None:
        self._chain = chain
        self._addresses = tuple(addresses)
        self._raw_addresses = tuple(bytes.fromhex(address[2:]) for address in addresses)
        self._enough = events_per_step
        self.span = _FIRST_SPAN

    def range(self, first: int, last: int) -> Batch:
        """Blocks first..last or fewer, for blocks that are final: those with logs, and the last one."""
        headers: list[Header] = []
        logs: list[Log] = []
        last = min(last, first + MAX_SPAN - 1)
        while len(logs) < self._enough and first + len(headers) <= last:
            more_headers, more_logs = self._piece(first + len(headers), last)
            headers += more_headers
            logs += more_logs
        _check_linked(headers)
        found = {log.block_number for log in logs} | {headers[-1].number}
        return Batch(tuple(mirrored(h) for h in headers if h.number in found), tuple(logs), headers[0].parent_hash)

    def _piece(self, first: int, last: int) -> tuple[list[Header], list[Log]]:
        """Headers and logs of first..last or fewer, what one question gives."""
        answer = self._ask(first, last)
        if answer is None:
            headers = self._linked(first, first)
            return headers, _in_order(self._logs_of(headers[0]))
        end, logs = answer
        headers = self._linked(first, end)
        hashes = {header.number: header.hash for header in headers}
        if any(hashes.get(log.block_number) != log.block_hash for log in logs):
            raise Inconsistent(f"logs and headers of blocks {first} to {end} differ")
        return self._completed(headers, logs)

    def _completed(self, headers: list[Header], logs: list[Log]) -> tuple[list[Header], list[Log]]:
        """With the logs that an answer left out; up to a block's end where they are many."""
        found = {log.block_number for log in logs}
        late: list[Log] = []
        for count, header in enumerate(headers, 1):
            if header.number not in found:
                late += self._logs_of(header)
            if len(late) > self._enough:
                headers = headers[:count]
                break
        if not late:
            return headers, logs
        self.span = max(1, min(self.span, len(headers) * _LOGS_PER_ANSWER // len(late)))
        end = headers[-1].number
        return headers, _in_order([log for log in logs if log.block_number <= end] + late)

    def _ask(self, first: int, last: int) -> tuple[int, list[Log]] | None:
        """The block up to which an answer counts, and its logs; None where not even one block's fit into one."""
        while True:
            span = self.span
            end = min(last, first + span - 1)
            try:
                logs = _in_order(self._chain.logs(self._addresses, first, end))
            except TooManyResults:
                if span == 1:
                    return None
                self.span = max(1, span // 2)
                continue
            if logs and not first <= logs[0].block_number <= logs[-1].block_number <= end:
                raise Inconsistent(f"asked for logs of blocks {first} to {end}, got others")
            wanted = span * _LOGS_PER_ANSWER // max(1, len(logs))
            self.span = max(1, min(wanted, span * 2, MAX_SPAN))
            return self._cut(end, logs)

    def _cut(self, end: int, logs: list[Log]) -> tuple[int, list[Log]]:
        """An answer that holds more than a batch may is used up to a block's end, of one block at least."""
        if len(logs) <= self._enough:
            return end, logs
        end = max(logs[0].block_number, logs[self._enough].block_number - 1)
        return end, [log for log in logs if log.block_number <= end]

    def blocks(self, first: int, last: int) -> Batch:
        """Every block first..last or fewer, linked, with the logs of exactly these hashes."""
        headers = self._linked(first, last)
        logs: list[Log] = []
        for count, header in enumerate(headers, 1):
            logs += _in_order(self._logs_of(header))
            if len(logs) >= self._enough:
                headers = headers[:count]
                break
        return Batch(tuple(mirrored(header) for header in headers), tuple(logs), headers[0].parent_hash)

    def has(self, block: MirroredBlock) -> bool:
        """Whether the chain has this block, now."""
        header = self._chain.header(block.number)
        return header is not None and header.hash == block.hash

    def _logs_of(self, header: Header) -> list[Log]:
        """A block's logs; none without asking where its bloom rules them out."""
        if not self._may_hold(header):
            return []
        for _ in range(_ASKED_AGAIN + 1):
            try:
                found = self._chain.logs_of(self._addresses, header.hash)
            except TooManyResults:
                raise
            except RpcRefused as error:
                raise Inconsistent(f"block {header.number} vanished while it was read") from error
            if any(log.block_hash != header.hash for log in found):
                raise Inconsistent(f"logs of block {header.number} are of another block")
            if found:
                return found
        return []

    def _may_hold(self, header: Header) -> bool:
        return may_hold(header.bloom, self._raw_addresses, _TOPICS)

    def _linked(self, first: int, last: int) -> list[Header]:
        answers = self._chain.headers(range(first, last + 1))
        headers = [header for header in answers if header is not None]
        if len(headers) != last + 1 - first:
            raise Inconsistent("a block that was there is gone")
        for number, header in enumerate(headers, first):
            if header.number != number:
                raise Inconsistent(f"asked for block {number}, got block {header.number}")
        _check_linked(headers)
        return headers


def _check_linked(headers: Sequence[Header]) -> None:
    for parent, child in pairwise(headers):
        if child.parent_hash != parent.hash:
            raise Inconsistent(f"block {child.number} doesn't follow block {parent.number}")


def _in_order(logs: Sequence[Log]) -> list[Log]:
    """In chain order, each once: an endpoint behind a cache may repeat or shuffle them."""
    once = {(log.block_number, log.log_index): log for log in logs}
    return [once[place] for place in sorted(once)]
