"""What a wallet believes of its transaction: nothing is forgotten or paid twice on the word of a node in trouble, and
what is written down is not signed unseen."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from everlease.chain.base import Fees, TxReceipt
from everlease.chain.contracts import Call
from everlease.chain.errors import (
    InsufficientFunds,
    NonceHeld,
    NotMined,
    Overtaken,
    RpcRefused,
    RpcUnavailable,
    TooDear,
    Underpriced,
)
from everlease.chain.keys import Key
from everlease.chain.memory import MemoryChain
from everlease.chain.offers import MAX_FEE
from everlease.chain.signing import sign_transaction
from everlease.chain.wallet_queue import SendInterrupted, WalletQueue
from everlease.chain.wallet_record import SentTx
from everlease.domain.transactions import FeeOffer
from tests.unit.chain.test_wallet_queue import GWEI, KEY, TO, Chain, call, killed, old

STRANGER = Key.of(b"\x08" * 32)


class Wallet:
    """A wallet's folder; each use of ``queue`` is a new command."""

    def __init__(self, folder: Path) -> None:
        self.chain, self.folder, self.told = Chain(), folder, list[str]()

    def queue(self, timeout_s: float = 0.3) -> WalletQueue:
        return WalletQueue(self.chain, KEY, self.folder / "wallet", self.told.append, timeout_s=timeout_s)

    def pay(self, intent: str = "pay", timeout_s: float = 0.3) -> TxReceipt:
        return self.queue(timeout_s).send(intent, lambda: call(intent.encode()))

    @property
    def record(self) -> Path:
        return self.folder / "wallet/sent.json"

    def sent(self) -> SentTx:
        return msgspec.json.decode(self.record.read_bytes(), type=SentTx)

    def die_before_sending(self, intent: str) -> bytes:
        """A command that is killed when it would send; what it signed."""
        self.chain.on_send = killed
        with pytest.raises(SystemExit):
            self.pay(intent)
        old(self.folder)
        self.chain.on_send = lambda raw: None
        return bytes.fromhex(self.sent().newest.raw[2:])


@pytest.fixture
def wallet(tmp_path: Path) -> Wallet:
    return Wallet(tmp_path)


def rival(nonce: int, data: bytes = b"rival", fee: int = 9 * GWEI) -> bytes:
    """A transaction of the same key by another program."""
    return sign_transaction(KEY, 31337, nonce, TO, data, 50_000, FeeOffer(fee, GWEI))[0]


# -- refusals that are none --


@pytest.mark.parametrize(
    "refusal",
    [
        RpcRefused("eth_sendRawTransaction", -32002, "request timed out"),
        RpcRefused("eth_sendRawTransaction", -32603, "Internal error"),
        RpcRefused("eth_sendRawTransaction", -32010, "AlreadyKnown"),
        Underpriced("eth_sendRawTransaction", -32000, "replacement transaction underpriced"),
    ],
    ids=str,
)
def test_what_was_refused_and_arrived_all_the_same_is_not_paid_twice(wallet: Wallet, refusal: RpcRefused) -> None:
    def arrived(raw: bytes) -> None:
        MemoryChain.send_raw(wallet.chain, raw)
        raise refusal

    wallet.chain.on_send = arrived
    with pytest.raises(NotMined):
        wallet.pay()
    wallet.chain.on_send = lambda raw: None
    wallet.chain.mine()
    assert wallet.pay().ok
    assert wallet.chain.effects() == [b"pay"]


def test_a_node_in_trouble_leaves_the_record_and_the_same_command_sends_the_same(wallet: Wallet) -> None:
    def trouble(raw: bytes) -> None:
        raise RpcRefused("eth_sendRawTransaction", -32002, "request timed out")

    wallet.chain.on_send = trouble
    with pytest.raises(NotMined):
        wallet.pay()
    signed = wallet.sent().newest.tx_hash
    old(wallet.folder)
    wallet.chain.on_send = lambda raw: None
    assert wallet.pay().tx_hash == signed


def test_a_refusal_is_told_and_forgotten(wallet: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everlease.chain.wallet_fate._GRACE_S", 0.0)

    def refuse(raw: bytes) -> None:
        raise InsufficientFunds("eth_sendRawTransaction", -32603, "insufficient funds for gas * price + value")

    wallet.chain.on_send = refuse
    with pytest.raises(InsufficientFunds):
        wallet.pay()
    assert not wallet.record.exists()


# -- places taken, and held --


def test_one_used_nonce_and_then_errors_are_no_proof_that_another_took_its_place(
    wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everlease.chain.wallet_fate._SURE_S", 0.1)
    chain, answers = wallet.chain, iter([[None]])

    def receipts(tx_hashes: Sequence[str]) -> list[TxReceipt | None]:
        for answer in answers:  # an endpoint that lags, and then none
            return list(answer)
        raise RpcUnavailable("eth_getTransactionReceipt", "timed out")

    monkeypatch.setattr(chain, "receipts", receipts)
    monkeypatch.setattr(chain, "knows", lambda tx_hash: False)
    with pytest.raises(NotMined):
        wallet.pay(timeout_s=0.6)
    monkeypatch.undo()
    assert wallet.pay().ok
    assert chain.effects() == [b"pay"]


def test_what_the_chain_still_shows_is_not_overtaken(wallet: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everlease.chain.wallet_fate._SURE_S", 0.1)
    chain = wallet.chain
    monkeypatch.setattr(MemoryChain, "receipts", lambda self, hashes: [None for _ in hashes])
    monkeypatch.setattr(chain, "knows", lambda tx_hash: bool(chain.effects()))  # the index of receipts lags behind
    with pytest.raises(NotMined):
        wallet.pay(timeout_s=0.6)
    monkeypatch.undo()
    assert wallet.pay().ok
    assert chain.effects() == [b"pay"]


def test_no_place_is_taken_above_another_programs_transaction(wallet: Wallet) -> None:
    chain = wallet.chain
    MemoryChain.send_raw(chain, rival(0))
    with pytest.raises(NonceHeld, match="another program's transaction 0 of this wallet"):
        wallet.pay()
    assert not wallet.record.exists()
    chain.forget_pool()
    assert wallet.pay().ok
    assert chain.effects() == [b"pay"]


def test_another_programs_transaction_is_waited_for(wallet: Wallet) -> None:
    MemoryChain.send_raw(wallet.chain, rival(0))
    threading.Timer(1.5, wallet.chain.mine).start()
    assert wallet.pay(timeout_s=20).ok
    assert wallet.chain.effects() == [b"rival", b"pay"]
    assert any("another program's transaction 0 of this wallet has no block yet" in line for line in wallet.told)


def test_a_missing_nonce_below_is_named(wallet: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everlease.chain.wallet_fate._GAP_S", 0.1)
    chain = wallet.chain
    chain.mine()
    chain.send_raw(rival(0))
    chain.mines = False
    with pytest.raises(NotMined):
        wallet.pay()
    chain.reorg(1)  # takes the other's transaction away, and nobody sends it again
    began = time.monotonic()
    with pytest.raises(NotMined, match="it waits for a transaction 0 of this wallet"):
        wallet.pay("other", timeout_s=20)
    assert time.monotonic() - began < 10
    assert wallet.record.exists()


# -- what no endpoint shows --


def test_of_one_that_no_endpoint_showed_and_the_next_only_one_is_mined(wallet: Wallet) -> None:
    hidden = wallet.die_before_sending("pay")
    wallet.pay("other")
    assert any("not seen by the chain yet: the next transaction takes its place" in line for line in wallet.told)
    with pytest.raises(RpcRefused, match="nonce too low"):
        MemoryChain.send_raw(wallet.chain, hidden)
    assert wallet.chain.effects() == [b"other"]


def test_one_that_no_endpoint_showed_keeps_its_place_until_it_is_used(wallet: Wallet) -> None:
    hidden = wallet.die_before_sending("pay")
    for _ in range(2):
        assert wallet.queue().settle("look") is None
    assert wallet.record.exists(), "nothing took its place"
    MemoryChain.send_raw(wallet.chain, hidden)
    wallet.chain.mine()
    assert wallet.pay().ok
    assert wallet.chain.effects() == [b"pay"]


def test_the_hidden_one_mined_in_place_of_the_next_is_told_and_not_paid_again(wallet: Wallet) -> None:
    hidden = wallet.die_before_sending("pay")
    chain = wallet.chain

    def relay_wins(raw: bytes) -> None:
        chain.on_send = lambda raw: None
        MemoryChain.send_raw(chain, hidden)
        chain.mine()

    chain.on_send = relay_wins
    assert wallet.pay("other").ok
    assert any("pay: begun" in line and "is in block 1" in line for line in wallet.told)
    assert chain.effects() == [b"pay", b"other"]


def test_the_hidden_one_mined_while_the_next_waits_is_told_as_such(wallet: Wallet) -> None:
    hidden = wallet.die_before_sending("pay")
    chain = wallet.chain
    chain.mines = False

    def relay_wins() -> None:
        chain.forget_pool()
        MemoryChain.send_raw(chain, hidden)
        chain.mine()

    threading.Timer(0.3, relay_wins).start()
    with pytest.raises(Overtaken, match=r"other \(0x"):
        wallet.pay("other", timeout_s=20)
    assert "pay: begun" in wallet.told[-1]
    assert wallet.told[-1].endswith("after all")
    assert chain.effects() == [b"pay"]
    assert not wallet.record.exists()


def test_the_hidden_one_mined_after_the_next_was_sent_counts_for_its_own_command(wallet: Wallet) -> None:
    hidden = wallet.die_before_sending("pay")
    chain = wallet.chain
    chain.mines = False
    with pytest.raises(NotMined):
        wallet.pay("other")
    chain.forget_pool()
    MemoryChain.send_raw(chain, hidden)
    chain.mine()
    chain.mines = True
    assert wallet.pay("pay").ok
    assert chain.effects() == [b"pay"], "it is the receipt of the hidden one"


def test_ctrl_c_before_the_next_is_signed_keeps_the_hidden_one(wallet: Wallet) -> None:
    wallet.die_before_sending("pay")

    def broken() -> Call:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="other: not sent"):
        wallet.queue().send("other", broken)
    assert wallet.sent().intent == "pay"


def test_ctrl_c_while_an_earlier_one_is_waited_for_says_what_was_sent(
    wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet.chain.mines = False
    with pytest.raises(NotMined):
        wallet.pay()

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("everlease.chain.wallet_fate.time.sleep", interrupted)
    with pytest.raises(SendInterrupted, match=r"pay: sent \(0x[0-9a-f]{64}\)"):
        wallet.queue(60).settle("pay")
    assert any("waiting up to 60 s for its block" in line for line in wallet.told)
    assert wallet.record.exists()


# -- fees --


def test_a_dearer_version_that_the_wallet_can_not_pay_is_not_kept(wallet: Wallet) -> None:
    chain = wallet.chain
    chain.mines = False
    with pytest.raises(NotMined):
        wallet.pay()
    first = wallet.sent()
    chain.base_fee *= 10

    def poor(raw: bytes) -> None:
        raise InsufficientFunds("eth_sendRawTransaction", -32000, "insufficient funds for gas * price + value")

    chain.on_send = poor
    with pytest.raises(NotMined):
        wallet.pay()
    assert wallet.sent() == first
    chain.base_fee //= 10
    chain.mine()
    assert wallet.pay().ok
    assert chain.effects() == [b"pay"]


def test_a_tip_that_is_too_low_is_raised_as_well(wallet: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet.chain.mines = False
    wallet.chain.base_fee = 50 * GWEI
    with pytest.raises(NotMined):
        wallet.pay()
    monkeypatch.setattr(wallet.chain, "fees", lambda: Fees(50 * GWEI, 20 * GWEI))
    with pytest.raises(NotMined):
        wallet.pay()
    assert [version.priority_fee // GWEI for version in wallet.sent().versions] == [1, 20]


@pytest.mark.parametrize("fees", [Fees(400 * GWEI, 9_000 * GWEI), Fees(MAX_FEE, 0), Fees(0, 10**18)])
def test_no_more_is_offered_than_the_cap(wallet: Wallet, monkeypatch: pytest.MonkeyPatch, fees: Fees) -> None:
    wallet.chain.mines = False
    monkeypatch.setattr(wallet.chain, "fees", lambda: fees)
    for _ in range(3):
        with pytest.raises(NotMined):
            wallet.pay()
    assert all(it.priority_fee <= it.max_fee <= MAX_FEE for it in wallet.sent().versions)


def test_a_base_fee_above_the_cap_is_told_and_nothing_is_sent(wallet: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wallet.chain, "fees", lambda: Fees(MAX_FEE + 1, 0))
    with pytest.raises(TooDear, match="not sent"):
        wallet.pay()
    assert not wallet.record.exists()


# -- the file --

Change = Callable[[SentTx], SentTx]
STOLEN = sign_transaction(STRANGER, 31337, 0, TO, b"pay", 26_250, FeeOffer(3 * GWEI, GWEI))


def _version(sent: SentTx, **fields: object) -> SentTx:
    return msgspec.structs.replace(sent, versions=[msgspec.structs.replace(sent.newest, **fields)])


@pytest.mark.parametrize(
    "change",
    [
        lambda sent: msgspec.structs.replace(sent, to="0x" + "66" * 20),
        lambda sent: msgspec.structs.replace(sent, data="0x" + b"steal".hex()),
        lambda sent: msgspec.structs.replace(sent, gas=30_000_000),
        lambda sent: msgspec.structs.replace(sent, nonce=1),
        lambda sent: msgspec.structs.replace(sent, versions=[]),
        lambda sent: _version(sent, tx_hash="0x" + "77" * 32),
        lambda sent: _version(sent, max_fee=1),
        lambda sent: _version(sent, raw="0x02"),
        lambda sent: _version(sent, raw="zz"),
        lambda sent: _version(sent, raw="0x" + STOLEN[0].hex(), tx_hash=STOLEN[1]),
        lambda sent: msgspec.structs.replace(sent, instead_of=msgspec.structs.replace(sent, to="0x" + "66" * 20)),
    ],
)
def test_a_record_that_another_wrote_is_told_and_never_signed(wallet: Wallet, change: Change) -> None:
    wallet.chain.mines = False
    with pytest.raises(NotMined):
        wallet.pay()
    wallet.record.write_bytes(msgspec.json.encode(change(wallet.sent())))
    wallet.chain.base_fee *= 10  # a dearer version would be signed from what the file says
    assert wallet.queue().settle("pay") is None
    assert "this wallet did not write" in wallet.told[-1]
    assert not wallet.record.exists()


def test_a_record_of_another_chain_is_refused(wallet: Wallet) -> None:
    wallet.die_before_sending("pay")
    wallet.chain._chain_id = 1
    assert wallet.queue().settle("pay") is None
    assert "this wallet did not write" in wallet.told[-1]
