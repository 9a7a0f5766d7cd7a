"""A wallet's turns: one nonce each, nothing twice after an interruption, across threads and processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from everlease.chain.contracts import Call
from everlease.chain.errors import AlreadyKnown, CallReverted, NotMined, Overtaken, RpcUnavailable
from everlease.chain.keys import Key
from everlease.chain.memory import Emitted, MemoryChain
from everlease.chain.signing import sign_transaction
from everlease.chain.wallet_queue import SendInterrupted, WalletQueue
from everlease.domain.transactions import FeeOffer

KEY = Key.of(b"\x07" * 32)
TO = "0x" + "11" * 20
GWEI = 10**9


def call(data: bytes = b"pay") -> Call:
    return Call(TO, data, "pay")


class Chain(MemoryChain):
    """Mines at once unless told not to; a test says what happens at each delivery."""

    def __init__(self) -> None:
        self.done: list[bytes] = []
        self.mines = True
        self.on_send: Callable[[bytes], None] = lambda raw: None
        self.revert = False

        def contract(sender: str, to: str, data: bytes) -> list[Emitted]:
            if self.revert:
                raise CallReverted("No", {})
            return []

        super().__init__(contract=contract)

    def send_raw(self, raw: bytes) -> str:
        self.on_send(raw)
        tx_hash = super().send_raw(raw)
        if self.mines:
            self.mine()
        return tx_hash

    def effects(self) -> list[bytes]:
        """Data of every call that was mined."""
        return [tx.data for block in self._blocks for tx in block.transactions]


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def queue(chain: Chain, tmp_path: Path, told: list[str]) -> WalletQueue:
    return WalletQueue(chain, KEY, tmp_path / "wallet", told.append, timeout_s=0.3)


def killed(raw: bytes) -> None:
    raise SystemExit  # stands for kill -9: nothing of ours runs afterwards that would tidy up


def interrupted(raw: bytes) -> None:
    raise KeyboardInterrupt


def old(folder: Path) -> None:
    """Let the record be older than the time that a transaction may need to be seen."""
    file = folder / "wallet/sent.json"
    file.write_text(file.read_text().replace('"at":', '"at":1,"was":'))


def test_threads_take_turns(chain: Chain, tmp_path: Path) -> None:
    def send(number: int) -> None:
        queue = WalletQueue(chain, KEY, tmp_path / "wallet")
        queue.send(f"pay {number}", lambda: call(bytes([number])))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chain.effects()) == [bytes([number]) for number in range(10)]


def test_what_a_call_is_made_of_is_read_in_its_turn(chain: Chain, tmp_path: Path, queue: WalletQueue) -> None:
    other = WalletQueue(chain, KEY, tmp_path / "wallet")
    inside, seen = threading.Event(), list[int]()

    def wait_for_turn() -> None:
        inside.wait()
        other.send("second", lambda: call(b"%d" % chain.nonce(KEY.address)))

    thread = threading.Thread(target=wait_for_turn)
    thread.start()
    with queue.turn():
        inside.set()
        time.sleep(0.1)
        seen.append(chain.nonce(KEY.address))
        queue.send("first", lambda: call(b"first"))
    thread.join()
    assert (seen, chain.effects()) == ([0], [b"first", b"1"])


HOLDS = """
import sys, time
from pathlib import Path
from everlease.chain.keys import Key
from everlease.chain.memory import MemoryChain
from everlease.chain.wallet_queue import WalletQueue
with WalletQueue(MemoryChain(), Key.of(b"\\x07" * 32), Path(sys.argv[1])).turn():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_process_waits_for_another_and_no_longer(chain: Chain, queue: WalletQueue, tmp_path: Path) -> None:
    told: list[str] = []
    queue = WalletQueue(chain, KEY, tmp_path / "wallet", told.append)
    argv = [sys.executable, "-c", HOLDS, str(tmp_path / "wallet")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        threading.Timer(0.3, lambda: os.kill(holder.pid, signal.SIGKILL)).start()
        began = time.monotonic()
        queue.send("pay", call)
        assert time.monotonic() - began > 0.2
    assert told == ["another command is sending for this wallet: waiting for it"]
    assert chain.effects() == [b"pay"]


def test_a_wallets_files_are_its_owners_alone(chain: Chain, queue: WalletQueue, tmp_path: Path) -> None:
    chain.mines = False
    with pytest.raises(NotMined):
        queue.send("pay", call)
    folder = tmp_path / "wallet"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {"lock": 0o600, "sent.json": 0o600}


def test_killed_before_it_was_sent_the_same_command_sends_it_once(
    chain: Chain, queue: WalletQueue, tmp_path: Path
) -> None:
    chain.on_send = killed
    with pytest.raises(SystemExit):
        queue.send("pay", call)
    old(tmp_path)
    chain.on_send = lambda raw: None
    assert queue.send("pay", lambda: call(b"another permit")).ok
    assert chain.effects() == [b"pay"], "the same bytes, not new ones"


def test_killed_before_it_was_sent_another_command_takes_its_nonce(
    chain: Chain, queue: WalletQueue, tmp_path: Path, told: list[str]
) -> None:
    raws: list[bytes] = []

    def die(raw: bytes) -> None:
        raws.append(raw)
        raise SystemExit

    chain.on_send = die
    with pytest.raises(SystemExit):
        queue.send("pay", call)
    old(tmp_path)
    chain.on_send = lambda raw: None
    queue.send("other", lambda: call(b"other"))
    assert "pay: begun" in told[0]
    assert "not seen by the chain yet: the next transaction takes its place" in told[0]
    with pytest.raises(Exception, match="nonce too low"):
        MemoryChain.send_raw(chain, raws[0])
    assert chain.effects() == [b"other"]


def test_killed_after_it_was_sent_the_same_command_sends_no_other(
    chain: Chain, queue: WalletQueue, told: list[str]
) -> None:
    def sent_then_dead(raw: bytes) -> None:
        chain.on_send = lambda raw: None
        chain.send_raw(raw)
        raise SystemExit

    chain.on_send = sent_then_dead
    with pytest.raises(SystemExit):
        queue.send("pay", call)
    assert queue.send("pay", call).ok
    assert chain.effects() == [b"pay"]
    assert "it is in block 1" in told[0]
    queue.send("pay", call)
    assert chain.effects() == [b"pay", b"pay"], "that was told, so this is another"


def test_a_receipt_that_was_never_seen_is_waited_for_by_the_next_command(
    chain: Chain, queue: WalletQueue, told: list[str]
) -> None:
    chain.mines = False
    with pytest.raises(NotMined, match="pay was sent"):
        queue.send("pay", call)
    with pytest.raises(NotMined, match="pay was sent"):
        queue.send("other", lambda: call(b"other"))
    chain.mine()
    chain.mines = True
    queue.send("other", lambda: call(b"other"))
    assert chain.effects() == [b"pay", b"other"]


def test_ctrl_c_says_what_was_sent_and_what_was_not(chain: Chain, queue: WalletQueue, told: list[str]) -> None:
    def broken() -> Call:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="pay: not sent"):
        queue.send("pay", broken)
    chain.on_send = interrupted
    with pytest.raises(SendInterrupted, match=r"pay: sent \(0x[0-9a-f]{64}\), not seen in a block yet"):
        queue.send("pay", call)


def test_no_answer_to_a_delivery_is_no_failure(chain: Chain, queue: WalletQueue) -> None:
    def answer_lost(raw: bytes) -> None:
        chain.on_send = lambda raw: None
        chain.send_raw(raw)
        raise RpcUnavailable("eth_sendRawTransaction", "timed out")

    chain.on_send = answer_lost
    assert queue.send("pay", call).ok
    assert chain.effects() == [b"pay"]


def test_a_second_endpoint_that_knows_it_already_is_no_failure(chain: Chain, queue: WalletQueue) -> None:
    def known(raw: bytes) -> None:
        chain.on_send = lambda raw: None
        chain.send_raw(raw)
        raise AlreadyKnown("eth_sendRawTransaction", -32000, "already known")

    chain.on_send = known
    assert queue.send("pay", call).ok


def test_another_program_of_the_same_key_costs_an_attempt(chain: Chain, queue: WalletQueue) -> None:
    made: list[int] = []

    def rival(raw: bytes) -> None:
        chain.on_send = lambda raw: None
        chain.send_raw(sign_transaction(KEY, 31337, 0, TO, b"rival", 50_000, FeeOffer(9 * GWEI, GWEI))[0])

    def make() -> Call:
        made.append(chain.nonce(KEY.address))
        return call()

    chain.on_send = rival
    assert queue.send("pay", make).ok
    assert (chain.effects(), made) == ([b"rival", b"pay"], [0, 1])


def test_a_transaction_that_another_one_displaced_is_told_as_such(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everlease.chain.wallet_fate._SURE_S", 0.1)
    queue = WalletQueue(chain, KEY, tmp_path / "wallet", timeout_s=5)
    chain.mines = False

    def displaced(raw: bytes) -> None:
        chain.on_send = lambda raw: None
        timer = threading.Timer(0.1, rival)
        timer.start()

    def rival() -> None:
        chain.send_raw(sign_transaction(KEY, 31337, 0, TO, b"rival", 50_000, FeeOffer(90 * GWEI, 9 * GWEI))[0])
        chain.mine()

    chain.on_send = displaced
    with pytest.raises(Overtaken, match=r"pay \(0x.*won't be mined"):
        queue.send("pay", call)
    assert chain.effects() == [b"rival"]
    chain.mines = True
    assert queue.send("pay", call).ok


def test_one_that_the_market_left_behind_is_made_dearer_by_the_next_command(chain: Chain, queue: WalletQueue) -> None:
    chain.mines = False
    with pytest.raises(NotMined):
        queue.send("pay", call)
    chain.base_fee *= 10
    chain.mines = True
    assert queue.send("pay", call).ok
    assert chain.effects() == [b"pay"]


def test_a_chain_that_was_started_anew_forgets_what_waited(
    chain: Chain, queue: WalletQueue, tmp_path: Path, told: list[str]
) -> None:
    queue.send("earlier", call)
    chain.mines = False
    with pytest.raises(NotMined):
        queue.send("pay", call)
    old(tmp_path)
    fresh = Chain()
    assert WalletQueue(fresh, KEY, tmp_path / "wallet", told.append).send("pay", call).ok
    assert fresh.effects() == [b"pay"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"intent":1}', b"\xff" * 100])
def test_a_damaged_record_is_told_and_blocks_nothing(
    chain: Chain, queue: WalletQueue, tmp_path: Path, told: list[str], content: bytes
) -> None:
    (tmp_path / "wallet").mkdir()
    (tmp_path / "wallet/sent.json").write_bytes(content)
    assert queue.send("pay", call).ok
    assert "sent.json is damaged" in told[0]


def test_a_revert_is_told_before_anything_is_sent(chain: Chain, queue: WalletQueue) -> None:
    chain.revert = True
    with pytest.raises(CallReverted):
        queue.send("pay", call)
    assert chain.nonce(KEY.address) == 0
