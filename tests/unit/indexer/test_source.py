"""What a batch holds: every log once, in order, bounded by events as well as by blocks, whatever the history."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlease.chain._generated import events as ev
from everlease.chain.base import Log
from everlease.chain.memory import MemoryChain
from everlease.domain.mirrored import MirroredBlock
from indexer.read_ahead import Decoded, ReadAhead
from indexer.source import Inconsistent, Source
from tests.support.events import as_log
from tests.support.executors import Immediate

STAKING = "0x" + "57" * 20
WHO = "0x" + "01" * 20


def chain_of(counts: list[int], kind: type[MemoryChain] = MemoryChain) -> MemoryChain:
    """A chain whose block n + 1 holds ``counts[n]`` logs, all of it final."""
    chain = kind(finality=0)
    for block, count in enumerate(counts, 1):
        for number in range(count):
            chain.emit(*as_log(STAKING, ev.ProviderStaked(WHO, block, number)))
        chain.mine()
    return chain


class Silent(MemoryChain):
    """Answers ranges with no logs and no error, as a node that lags does."""

    def logs(self, addresses: object, first: int, last: int) -> list[Log]:
        return []


histories = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@settings(deadline=None)
@given(st.sampled_from([MemoryChain, Silent]), histories, st.integers(1, 12), st.integers(1, 40), st.booleans())
def test_batches_are_bounded_and_leave_nothing_out(
    kind: type[MemoryChain], counts: list[int], enough: int, most: int, ahead: bool
) -> None:
    chain = chain_of(counts, kind)
    chain.max_logs = most
    reader = ReadAhead(Source(chain, [STAKING], events_per_step=enough), Immediate() if ahead else None)
    at, found = chain.header(0), []
    assert at is not None
    number, parent = 0, at.hash
    while number < len(counts):
        batch = reader.range(number + 1, len(counts))
        assert batch.parent_hash == parent
        assert len(batch.events) <= 2 * enough + max(counts)
        number, parent = batch.blocks[-1].number, batch.blocks[-1].hash
        found += [(event.block_number, event.log_index) for event, _ in batch.events]
    assert found == [(block, index) for block, count in enumerate(counts, 1) for index in range(count)]


def test_live_blocks_are_bounded_by_events_too() -> None:
    source = Source(chain_of([2, 0, 3, 4]), [STAKING], events_per_step=5)
    batch = source.blocks(1, 4)
    assert [block.number for block in batch.blocks] == [1, 2, 3]
    assert [log.block_number for log in batch.logs] == [1, 1, 3, 3, 3]


def numbers(batch: Decoded) -> list[int]:
    return [event.block_number for event, _ in batch.events]


def test_at_most_one_batch_is_read_ahead() -> None:
    executor = Immediate()
    reader = ReadAhead(Source(chain_of([1] * 9), [STAKING], events_per_step=2), executor)
    taken = []
    for count in range(1, 5):
        taken += numbers(reader.range(len(taken) + 1, 9))
        assert executor.submitted == count
    assert taken == list(range(1, 9))
    assert numbers(reader.range(9, 9)) == [9]
    assert executor.submitted == 4


def test_what_was_read_ahead_is_dropped_when_the_chain_changes() -> None:
    chain = chain_of([1] * 9)
    reader = ReadAhead(Source(chain, [STAKING], events_per_step=2), Immediate())
    first = reader.range(1, 9)
    chain.reorg(7)
    again = reader.range(3, 9)
    assert again.events == []
    assert again.parent_hash == first.blocks[-1].hash
    header = chain.header(9)
    assert header is not None
    assert again.blocks == (MirroredBlock(9, header.hash, header.parent_hash, header.timestamp),)


def test_what_was_read_ahead_is_dropped_when_something_else_is_asked_for() -> None:
    reader = ReadAhead(Source(chain_of([1] * 9), [STAKING], events_per_step=2), Immediate())
    reader.range(1, 9)
    assert numbers(reader.range(1, 9)) == [1, 2]
    assert numbers(reader.blocks(8, 9)) == [8, 9]
    assert numbers(reader.range(3, 9)) == [3, 4]


class Shrinking(MemoryChain):
    """Loses its end while it is read."""

    asked = 0

    def headers(self, numbers: object) -> list[object]:  # type: ignore[override]
        self.asked += 1
        return [None] if self.asked == 2 else super().headers(numbers)  # type: ignore[arg-type]


def test_an_error_of_reading_ahead_is_told_once_and_then_read_anew() -> None:
    chain = Shrinking(finality=0)
    for _ in range(4):
        chain.emit(*as_log(STAKING, ev.ProviderStaked(WHO, 1, 1)))
        chain.mine()
    reader = ReadAhead(Source(chain, [STAKING], events_per_step=1), Immediate())
    assert numbers(reader.range(1, 4)) == [1]
    with pytest.raises(Inconsistent):
        reader.range(2, 4)
    assert numbers(reader.range(2, 4)) == [2]
