"""One suite for both journals; the PostgreSQL one also shows that each change leaves an event."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from everlease.chain.journal import Journal
from everlease.chain.memory_journal import MemoryJournal
from everlease.db import Database, outbox
from everlease.db import journal as db_journal
from everlease.domain.transactions import FeeOffer, NonceTaken, TxReceipt

A, B = "0x" + "0a" * 20, "0x" + "0b" * 20
OFFER = FeeOffer(20, 2)


def receipt(number: int = 7, ok: bool = True) -> TxReceipt:
    return TxReceipt("0x" + "11" * 32, number, "0x" + f"{number:064x}", ok, 21_000, 1)


@dataclass(frozen=True)
class Rig:
    journal: Journal
    enqueue: Callable[..., int]
    events: Callable[[], list[str]]


@pytest.fixture(params=["memory", "postgres"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "memory":
        memory = MemoryJournal(lambda: 1000.0)

        def enqueue(action_key: str, sender: str = A) -> int:
            return memory.enqueue(action_key, sender, B, b"data")

        yield Rig(memory, enqueue, lambda: [topic for topic, _ in memory.events])
        return
    database: Database = request.getfixturevalue("database")
    postgres = db_journal.PostgresJournal(database, lambda: 1000.0)

    def insert(action_key: str, sender: str = A, **more: Any) -> int:
        with database.transaction() as tx:
            return db_journal.enqueue(tx, action_key=action_key, sender=sender, to=B, data=b"data", call="test", **more)

    def topics() -> list[str]:
        with database.transaction() as tx:
            return [event.topic for event in outbox.claim_unsent(tx) if event.topic != "tx.enqueued"]

    yield Rig(postgres, insert, topics)


def test_the_way_of_a_transaction(rig: Rig) -> None:
    tx_id = rig.enqueue("a")
    assert rig.enqueue("a") == tx_id
    (row,) = rig.journal.open(A)
    assert (row.state, row.data, row.nonce, row.offers) == ("journaled", b"data", None, {})
    rig.journal.signed(tx_id, 4, b"raw", "0x" + "11" * 32, OFFER)
    rig.journal.sent(tx_id)
    rig.journal.sent(tx_id)
    (row,) = rig.journal.open(A)
    assert (row.state, row.nonce, row.raw, row.sent_at) == ("sent", 4, b"raw", 1000.0)
    assert row.offers == {"0x" + "11" * 32: OFFER}
    rig.journal.mined(tx_id, receipt(7))
    rig.journal.mined(tx_id, receipt(8))
    (row,) = rig.journal.open(A)
    assert (row.state, row.block_number) == ("mined", 8)
    rig.journal.dropped(tx_id)
    rig.journal.sent(tx_id)
    rig.journal.mined(tx_id, receipt(9))
    rig.journal.final(tx_id)
    assert not rig.journal.open(A)
    assert rig.events() == ["tx.sent", "tx.mined", "tx.dropped", "tx.sent", "tx.mined", "tx.final"]


def test_a_nonce_belongs_to_one(rig: Rig) -> None:
    first, second, other = rig.enqueue("a"), rig.enqueue("b"), rig.enqueue("c", B)
    rig.journal.signed(first, 0, b"one", "0x" + "11" * 32, OFFER)
    rig.journal.signed(first, 0, b"dearer", "0x" + "22" * 32, FeeOffer(30, 3))
    rig.journal.signed(other, 0, b"another key's", "0x" + "44" * 32, OFFER)
    with pytest.raises(NonceTaken):
        rig.journal.signed(second, 0, b"two", "0x" + "33" * 32, OFFER)
    assert rig.journal.highest_nonce(A) == 0
    assert rig.journal.highest_nonce("0x" + "0c" * 20) == -1
    assert rig.journal.raw_at(A, 0) == b"dearer"
    assert rig.journal.raw_at(A, 5) is None
    assert [len(row.offers) for row in rig.journal.open(A)] == [2, 0]


def test_a_sender_that_lost_its_lock_signs_nothing(rig: Rig) -> None:
    """It read the row before another sender signed it at nonce 0, and would sign it again at nonce 1."""
    tx_id = rig.enqueue("a")
    rig.journal.signed(tx_id, 0, b"one", "0x" + "11" * 32, OFFER)
    with pytest.raises(NonceTaken):
        rig.journal.signed(tx_id, 1, b"again", "0x" + "22" * 32, OFFER)
    rig.journal.mined(tx_id, receipt())
    with pytest.raises(NonceTaken):
        rig.journal.signed(tx_id, 0, b"dearer", "0x" + "33" * 32, OFFER)
    assert rig.journal.raw_at(A, 0) == b"one"


def test_a_displaced_one_keeps_its_hashes(rig: Rig) -> None:
    tx_id = rig.enqueue("a")
    rig.journal.signed(tx_id, 0, b"one", "0x" + "11" * 32, OFFER)
    rig.journal.sent(tx_id)
    rig.journal.displaced(tx_id)
    (row,) = rig.journal.open(A)
    assert (row.state, row.nonce, row.raw, len(row.offers)) == ("journaled", None, None, 1)


def test_failures_are_closed(rig: Rig) -> None:
    first, second = rig.enqueue("a"), rig.enqueue("b")
    rig.journal.failed(first, "Nope", "it reverted")
    rig.journal.troubled(second, "no funds")
    assert [row.id for row in rig.journal.open(A)] == [second]
    rig.journal.signed(second, 0, b"one", "0x" + "11" * 32, OFFER)
    rig.journal.failed(second, "Nope", "it reverted", receipt(ok=False))
    assert not rig.journal.open(A)
    assert rig.events() == ["tx.failed", "tx.failed"]


def test_one_holder_at_a_time(rig: Rig) -> None:
    with rig.journal.hold(A) as held:
        assert held
        with rig.journal.hold(A) as again, rig.journal.hold(B) as other:
            assert not again
            assert other
    with rig.journal.hold(A) as later:
        assert later
