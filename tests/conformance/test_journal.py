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


ONE, TWO, THREE = ("0x" + digits * 32 for digits in ("11", "22", "33"))


def receipt(number: int = 7, ok: bool = True, tx_hash: str = ONE) -> TxReceipt:
    return TxReceipt(tx_hash, number, block(number), ok, 21_000, 1)


def block(number: int) -> str:
    return "0x" + f"{number:064x}"


@dataclass(frozen=True)
class Rig:
    journal: Journal
    enqueue: Callable[..., int]
    events: Callable[[], list[str]]


@pytest.fixture(params=["memory", "postgres"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "memory":
        memory = MemoryJournal(lambda: 1000.0)

        def enqueue(action_key: str, sender: str = A, **more: Any) -> int:
            return memory.enqueue(action_key, sender, B, b"data", **more)

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
    rig.journal.signed(tx_id, 4, b"raw", ONE, OFFER, 5)
    assert rig.journal.open(A)[0].sent_head == 5
    rig.journal.sent(tx_id, 6)
    rig.journal.sent(tx_id, 7)
    (row,) = rig.journal.open(A)
    assert (row.state, row.nonce, row.raw, row.sent_at, row.sent_head) == ("sent", 4, b"raw", 1000.0, 6)
    assert row.offers == {ONE: OFFER}
    rig.journal.included(tx_id, receipt(7), final=False)
    rig.journal.included(tx_id, receipt(8), final=False)
    (row,) = rig.journal.open(A)
    assert (row.state, row.block_number) == ("mined", 8)
    rig.journal.dropped(tx_id, block(7))
    assert rig.journal.open(A)[0].state == "mined"
    rig.journal.dropped(tx_id, block(8))
    rig.journal.sent(tx_id, 8)
    assert rig.journal.open(A)[0].sent_head == 8
    rig.journal.included(tx_id, receipt(9), final=False)
    rig.journal.included(tx_id, receipt(9), final=True)
    assert not rig.journal.open(A)
    assert rig.events() == ["tx.sent", "tx.mined", "tx.dropped", "tx.sent", "tx.mined", "tx.final"]


def test_a_nonce_belongs_to_one(rig: Rig) -> None:
    first, second, other = rig.enqueue("a"), rig.enqueue("b"), rig.enqueue("c", B)
    rig.journal.signed(first, 0, b"one", ONE, OFFER, 5)
    rig.journal.signed(first, 0, b"dearer", TWO, FeeOffer(30, 3), 5)
    rig.journal.signed(other, 0, b"another key's", "0x" + "44" * 32, OFFER, 5)
    with pytest.raises(NonceTaken):
        rig.journal.signed(second, 0, b"two", THREE, OFFER, 5)
    assert rig.journal.highest_nonce(A) == 0
    assert rig.journal.highest_nonce("0x" + "0c" * 20) == -1
    assert rig.journal.raw_at(A, 0) == b"dearer"
    assert rig.journal.raw_at(A, 5) is None
    assert [len(row.offers) for row in rig.journal.open(A)] == [2, 0]


def test_a_sender_that_lost_its_lock_signs_nothing(rig: Rig) -> None:
    """It read the row before another sender signed it at nonce 0, and would sign it again at nonce 1."""
    tx_id = rig.enqueue("a")
    rig.journal.signed(tx_id, 0, b"one", ONE, OFFER, 5)
    with pytest.raises(NonceTaken):
        rig.journal.signed(tx_id, 1, b"again", TWO, OFFER, 5)
    rig.journal.included(tx_id, receipt(), final=False)
    with pytest.raises(NonceTaken):
        rig.journal.signed(tx_id, 0, b"dearer", THREE, OFFER, 5)
    assert rig.journal.raw_at(A, 0) == b"one"


def test_a_displaced_one_keeps_its_hashes(rig: Rig) -> None:
    tx_id = rig.enqueue("a")
    rig.journal.signed(tx_id, 0, b"one", ONE, OFFER, 5)
    rig.journal.sent(tx_id, 6)
    rig.journal.displaced(tx_id, [ONE])
    (row,) = rig.journal.open(A)
    assert (row.state, row.nonce, row.raw, len(row.offers)) == ("journaled", None, None, 1)


def test_a_version_that_was_not_looked_for_keeps_its_nonce(rig: Rig) -> None:
    """A sender that lost its lock asked for the old version alone; the dearer one may be what was mined."""
    tx_id = rig.enqueue("a")
    rig.journal.signed(tx_id, 0, b"one", ONE, OFFER, 5)
    rig.journal.signed(tx_id, 0, b"dearer", TWO, FeeOffer(30, 3), 5)
    rig.journal.displaced(tx_id, [ONE])
    (row,) = rig.journal.open(A)
    assert (row.nonce, row.raw) == (0, b"dearer")


def test_a_revert_is_provisional_until_it_is_final(rig: Rig) -> None:
    tx_id = rig.enqueue("a")
    rig.journal.signed(tx_id, 0, b"one", ONE, OFFER, 5)
    rig.journal.included(tx_id, receipt(7, ok=False), final=False, error="Nope")
    (row,) = rig.journal.open(A)
    assert (row.state, row.block_number) == ("reverted", 7)
    assert rig.enqueue("a", again=True) == tx_id
    assert rig.journal.open(A)[0].state == "reverted", "it may still be mined with success"
    rig.journal.included(tx_id, receipt(8), final=False)
    assert rig.journal.open(A)[0].state == "mined"
    rig.journal.included(tx_id, receipt(9, ok=False), final=True, error="Nope")
    assert not rig.journal.open(A)
    assert rig.events() == ["tx.reverted", "tx.mined", "tx.failed"]


@pytest.mark.parametrize("ok", [True, False])
def test_what_is_final_never_changes(rig: Rig, ok: bool) -> None:
    tx_id = rig.enqueue("a")
    rig.journal.signed(tx_id, 0, b"one", ONE, OFFER, 5)
    rig.journal.included(tx_id, receipt(7, ok), final=True)
    for other in (True, False):
        rig.journal.included(tx_id, receipt(8, other), final=False)
        rig.journal.included(tx_id, receipt(8, other), final=True)
    rig.journal.dropped(tx_id, block(7))
    rig.journal.displaced(tx_id, [ONE])
    rig.journal.sent(tx_id, 6)
    rig.journal.refused(tx_id, "Nope")
    with pytest.raises(NonceTaken):
        rig.journal.signed(tx_id, 0, b"dearer", TWO, OFFER, 5)
    assert not rig.journal.open(A)
    assert rig.events() == ["tx.final" if ok else "tx.failed"]


def test_a_failed_one_tried_again_ignores_receipts_of_its_former_life(rig: Rig) -> None:
    tx_id = rig.enqueue("a")
    rig.journal.signed(tx_id, 0, b"one", ONE, OFFER, 5)
    rig.journal.included(tx_id, receipt(7, ok=False), final=True)
    assert rig.enqueue("a") == rig.enqueue("a", again=True) == tx_id
    rig.journal.included(tx_id, receipt(7, ok=False), final=True)
    (row,) = rig.journal.open(A)
    assert (row.state, row.nonce, row.offers, row.sent_head) == ("journaled", None, {}, 0)
    rig.journal.signed(tx_id, 1, b"two", TWO, OFFER, 5)
    rig.journal.included(tx_id, receipt(8, tx_hash=TWO), final=True)
    assert rig.events() == ["tx.failed", "tx.final"]


def test_a_refusal_counts_only_before_it_is_signed(rig: Rig) -> None:
    """The simulation of a sender that lost its lock fails because the other one has done it already."""
    first, second = rig.enqueue("a"), rig.enqueue("b")
    rig.journal.refused(first, "it would revert")
    rig.journal.troubled(second, "no funds")
    assert [row.id for row in rig.journal.open(A)] == [second]
    rig.journal.signed(second, 0, b"one", ONE, OFFER, 5)
    rig.journal.refused(second, "it would revert")
    assert [row.state for row in rig.journal.open(A)] == ["journaled"]
    assert rig.events() == ["tx.failed"]


def test_one_holder_at_a_time(rig: Rig) -> None:
    with rig.journal.hold(A) as held:
        assert held
        with rig.journal.hold(A) as again, rig.journal.hold(B) as other:
            assert not again
            assert other
    with rig.journal.hold(A) as later:
        assert later
