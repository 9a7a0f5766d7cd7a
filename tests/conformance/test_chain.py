"""One suite for every ChainWriter: a real Anvil behind RpcChain, and MemoryChain."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from eth_account import Account

from everlease.chain.base import ChainWriter
from everlease.chain.errors import AlreadyKnown, NonceTooLow, RpcRefused, Underpriced
from everlease.chain.keys import Key
from everlease.chain.memory import MemoryChain
from everlease.chain.rpc import RpcChain
from tests.support.anvil import KEYS, running_anvil

SENDER = Key.of(bytes.fromhex(KEYS[1][2:]))
GWEI = 10**9


@dataclass(frozen=True)
class Rig:
    """A chain that mines when told to."""

    chain: ChainWriter
    mine: Callable[[int], None]
    reorg: Callable[[int], None]


@pytest.fixture(params=["memory", pytest.param("anvil", marks=pytest.mark.anvil)])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "memory":
        memory = MemoryChain(finality=4)
        yield Rig(memory, memory.mine, memory.reorg)
        return
    with running_anvil("--no-mining") as anvil:
        chain = RpcChain.connect([anvil.url])
        yield Rig(chain, anvil.mine, anvil.reorg)
        chain.close()


def raw(nonce: int, fee: int = 5 * GWEI, data: bytes = b"") -> bytes:
    fields = {
        "type": 2, "chainId": 31337, "nonce": nonce, "gas": 60_000, "maxFeePerGas": fee, "maxPriorityFeePerGas": fee,
        "to": b"\x11" * 20, "data": data, "value": 0,
    }  # fmt: skip
    return bytes(Account.sign_transaction(fields, SENDER.secret).raw_transaction)


def test_headers_are_linked(rig: Rig) -> None:
    rig.mine(3)
    found = rig.chain.headers([0, 1, 2, 3, 99])
    assert found[-1] is None
    assert [header.number for header in found[:-1] if header] == [0, 1, 2, 3]
    for parent, child in pairwise(found[:-1]):
        assert parent is not None
        assert child is not None
        assert child.parent_hash == parent.hash
    assert rig.chain.header("latest") == found[3]
    assert rig.chain.header(99) is None


def test_the_finalized_tag_moves(rig: Rig) -> None:
    rig.mine(10)
    finalized = rig.chain.header("finalized")
    assert finalized is not None
    assert finalized.number == 6
    assert finalized == rig.chain.header(6)


def test_a_transaction_is_pending_then_mined(rig: Rig) -> None:
    tx_hash = rig.chain.send_raw(raw(0))
    assert rig.chain.knows(tx_hash)
    assert rig.chain.receipts([tx_hash]) == [None]
    assert (rig.chain.nonce(SENDER.address), rig.chain.next_nonce(SENDER.address)) == (0, 1)
    rig.mine(1)
    (receipt,) = rig.chain.receipts([tx_hash])
    assert receipt is not None
    assert receipt.ok
    assert rig.chain.header(receipt.block_number).hash == receipt.block_hash  # type: ignore[union-attr]
    assert (rig.chain.nonce(SENDER.address), rig.chain.next_nonce(SENDER.address)) == (1, 1)


def test_the_same_transaction_twice(rig: Rig) -> None:
    rig.chain.send_raw(raw(0))
    with pytest.raises(AlreadyKnown):
        rig.chain.send_raw(raw(0))


def test_a_spent_nonce(rig: Rig) -> None:
    rig.chain.send_raw(raw(0))
    rig.mine(1)
    with pytest.raises(NonceTooLow):
        rig.chain.send_raw(raw(0, data=b"x"))


def test_replacement_needs_a_higher_fee(rig: Rig) -> None:
    first = rig.chain.send_raw(raw(0))
    with pytest.raises(Underpriced):
        rig.chain.send_raw(raw(0, fee=4 * GWEI))
    second = rig.chain.send_raw(raw(0, fee=6 * GWEI))
    rig.mine(1)
    assert [receipt is None for receipt in rig.chain.receipts([first, second])] == [True, False]


def test_a_nonce_gap_waits(rig: Rig) -> None:
    late = rig.chain.send_raw(raw(1))
    rig.mine(1)
    assert rig.chain.receipts([late]) == [None]
    early = rig.chain.send_raw(raw(0))
    rig.mine(1)
    assert None not in rig.chain.receipts([early, late])


def test_a_reorg_takes_blocks_and_transactions_away(rig: Rig) -> None:
    rig.mine(2)
    tx_hash = rig.chain.send_raw(raw(0))
    rig.mine(1)
    before = rig.chain.header(3)
    assert before is not None
    rig.reorg(1)
    after = rig.chain.header(3)
    assert after is not None
    assert after.hash != before.hash
    assert after.parent_hash == before.parent_hash
    assert rig.chain.receipts([tx_hash]) == [None]
    assert rig.chain.nonce(SENDER.address) == 0
    with pytest.raises(RpcRefused):
        rig.chain.logs_of(["0x" + "11" * 20], before.hash)


def test_how_transactions_stand_as_seen_from_a_final_block(rig: Rig) -> None:
    early = rig.chain.send_raw(raw(0))
    rig.mine(6)
    late = rig.chain.send_raw(raw(1))
    rig.mine(1)
    final = rig.chain.header("finalized")
    assert final is not None
    missing = "0x" + "77" * 32
    standing = rig.chain.standing(SENDER.address, final, [late, missing, early])
    assert (standing.anchored, standing.nonce, standing.final_nonce) == (True, 2, 1)
    head = rig.chain.header("latest")
    assert head is not None
    assert standing.head == head.number
    assert [receipt.tx_hash if receipt else None for receipt in standing.receipts] == [late, None, early]
    assert rig.chain.standing(SENDER.address, final, []).receipts == ()
    for other in (replace(final, hash=missing), replace(final, number=99)):
        elsewhere = rig.chain.standing(SENDER.address, other, [early])
        assert (elsewhere.anchored, elsewhere.nonce, elsewhere.final_nonce) == (False, 2, 0)
        assert elsewhere.receipts[0] is not None
    many = rig.chain.standing(SENDER.address, final, [missing] * 120 + [early])
    assert (many.anchored, len(many.receipts), many.receipts[120] is None) == (True, 121, False)


def test_empty_answers(rig: Rig) -> None:
    nobody = "0x" + "42" * 20
    rig.mine(1)
    assert rig.chain.code(nobody) == b""
    assert rig.chain.call(nobody, b"") == b""
    assert rig.chain.logs([nobody], 0, 1) == []
    assert rig.chain.receipts([]) == []
    assert rig.chain.estimate_gas(SENDER.address, nobody, b"") >= 21_000
