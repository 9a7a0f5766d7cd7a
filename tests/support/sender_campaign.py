"""One seeded fault schedule for the sender: whatever fails, each action has exactly one effect on the canonical chain.

Faults: a crash before or after any call of chain or journal, endpoints that fail, lag or accept and then time out,
lost pools, reorgs above finality, foreign transactions at our nonces, gas spikes above the cap, a second process on the
same key, which believes that it holds the lock too.
"""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eth_account import Account

from everlease.chain.errors import AlreadyKnown, NonceTooLow, RpcUnavailable, Underpriced
from everlease.chain.keys import Key
from everlease.chain.memory import Emitted, MemoryChain
from everlease.chain.memory_journal import MemoryJournal
from everlease.chain.sender import Sender, SendPolicy
from everlease.domain.transactions import NonceTaken

TARGET = "0x" + "aa" * 20
GWEI = 10**9
FINALITY = 6
CAP = 40 * GWEI


class Crash(Exception):
    """The process dies here."""


class Endpoints:
    """Several URLs in front of one chain: each call is answered by one of them; one lags a few blocks behind."""

    def __init__(self, schedule: "Schedule") -> None:
        self._schedule = schedule

    def __getattr__(self, name: str) -> Any:
        schedule = self._schedule
        method = getattr(schedule.chain, name)

        def call(*arguments: Any, **named: Any) -> Any:
            schedule.maybe_crash()
            fault = schedule.chance.random()
            if fault < schedule.rate:
                raise RpcUnavailable(name, "every endpoint failed")
            answer = method(*arguments, **named)
            if fault < 2 * schedule.rate:
                if name == "send_raw":
                    raise RpcUnavailable(name, "timed out after it was accepted")
                answer = schedule.lagging(name, arguments, named, answer)
            schedule.maybe_crash()
            return answer

        return call


class Process:
    """The journal as one process sees it; with ``deluded`` its lock is always granted."""

    def __init__(self, schedule: "Schedule", *, deluded: bool) -> None:
        self._schedule = schedule
        self._deluded = deluded

    @contextmanager
    def hold(self, sender: str) -> Iterator[bool]:
        with self._schedule.journal.hold(sender) as held:
            yield held or self._deluded

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._schedule.journal, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._schedule.maybe_crash()
            self._schedule.maybe_interleave()
            answer = method(*arguments, **named)
            self._schedule.maybe_crash()
            return answer

        return call


class Schedule:
    """``run`` plays it; ``tally`` counts what happened. Raises AssertionError where an action has no or two effects."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.chain = MemoryChain(finality=FINALITY, contract=self._contract)
        self.now = 1000.0
        self.journal = MemoryJournal(lambda: self.now)
        self.rate = self.chance.choice([0.0, 0.02, 0.1])
        self.tally: Counter[str] = Counter()
        self._crash_rate = self.chance.choice([0.0, 0.005, 0.02])
        self._deluded = self.chance.random() < 0.3
        self._keys = [Key.of(bytes([5 + number]) * 32) for number in range(2)]
        self._actions: list[str] = []
        self._inside = False
        self._deepest = self.chance.randint(1, FINALITY - 1)

    def run(self) -> None:
        """A history of enqueues, pumps, blocks and faults; then quiet, until the journal is empty; then the checks."""
        chance = self.chance
        for _ in range(chance.randrange(8, 25)):
            for _ in range(chance.randrange(3)):
                self._enqueue()
            self.chain.base_fee = chance.choice([1, 1, 1, 5, 20, 200]) * GWEI
            for key in self._keys:
                self._pump(key)
            self._trouble()
            self.chain.mine(chance.randrange(3))
            self.now += chance.choice([1, 12, 40])
        self._settle()
        self._check()

    def _contract(self, sender: str, to: str, data: bytes) -> list[Emitted]:
        return [(TARGET, (), data)] if to == TARGET else []

    def _enqueue(self) -> None:
        """A new action, or one that is there already (the same event came twice)."""
        if self._actions and self.chance.random() < 0.2:
            name = self.chance.choice(self._actions)
        else:
            name = f"job{self.chance.randrange(4)}:{len(self._actions)}:open"
            self._actions.append(name)
        key = self._keys[self._actions.index(name) % 2]
        self.journal.enqueue(name, key.address, TARGET, name.encode(), job_id=name.split(":")[0])

    def _pump(self, key: Key) -> None:
        try:
            self._sender().pump(key.address)
        except Crash:
            self.tally["crashes"] += 1
        except (RpcUnavailable, NonceTaken):
            self.tally["refusals"] += 1

    def _sender(self) -> Sender:
        policy = SendPolicy(max_fee_cap=CAP, displaced_after_s=30.0, bump_after_s=15.0, max_in_flight=5)
        keys = {key.address: key for key in self._keys}
        process = Process(self, deluded=self._deluded)
        return Sender(Endpoints(self), process, keys, policy=policy, clock=lambda: self.now)  # type: ignore[arg-type]

    def maybe_crash(self) -> None:
        """Die here, now and then."""
        if self.chance.random() < self._crash_rate:
            raise Crash

    def maybe_interleave(self) -> None:
        """Another process pumps the same keys in the middle of this one's pump."""
        if self._inside or self.chance.random() >= 0.03:
            return
        self._inside = True
        self.tally["interleaved"] += 1
        try:
            for key in self._keys:
                self._pump(key)
        finally:
            self._inside = False

    def lagging(self, name: str, arguments: Any, named: Any, answer: Any) -> Any:
        """What a node that is a few blocks behind says."""
        head = self.chain.header("latest")
        assert head is not None
        known = head.number - self.chance.randrange(1, FINALITY)
        self.tally["lagged"] += 1
        if name == "receipts":
            return [receipt if receipt is not None and receipt.block_number <= known else None for receipt in answer]
        if name == "nonce" and not named:
            return self.chain.nonce(*arguments, at=known)
        if name == "knows":
            return False
        return answer

    def _trouble(self) -> None:
        chance = self.chance
        if chance.random() < 0.15:
            self.chain.forget_pool()
            self.tally["lost pools"] += 1
        if chance.random() < 0.3:
            head = self.chain.header("latest")
            assert head is not None
            depth = min(self._deepest, head.number - 1)
            if depth > 0:
                self.chain.reorg(depth)
                self.tally["reorgs"] += 1
        if chance.random() < 0.1:
            key = chance.choice(self._keys)
            self._foreign(key, self.chain.nonce(key.address))

    def _foreign(self, key: Key, nonce: int) -> None:
        """Somebody else with our key spends our nonce, at a price that replaces ours."""
        fields = {
            "type": 2,
            "chainId": 31337,
            "nonce": nonce,
            "gas": 60_000,
            "maxFeePerGas": 300 * GWEI,
            "maxPriorityFeePerGas": 300 * GWEI,
            "to": b"\x22" * 20,
            "data": b"",
            "value": 0,
        }
        try:
            self.chain.send_raw(bytes(Account.sign_transaction(fields, key.secret).raw_transaction))
            self.tally["foreign"] += 1
        except (NonceTooLow, AlreadyKnown, Underpriced):
            return

    def _settle(self) -> None:
        self.rate = self._crash_rate = 0.0
        self.chain.base_fee = GWEI
        for _ in range(200):
            for key in self._keys:
                self._pump(key)
            self.chain.mine()
            self.now += 20
            if not any(self.journal.open(key.address) for key in self._keys):
                return
        raise AssertionError("the journal did not empty in 200 rounds")

    def _check(self) -> None:
        effects = Counter(log.data.decode() for log in self.chain.logs([TARGET], 0, 10**6))
        assert effects == Counter(self._actions), {name: count for name, count in effects.items() if count != 1}
        for tx_id in range(1, len(self._actions) + 1):
            row = self.journal.get(tx_id)
            assert row.state == "final", (row.action_key, row.state)
            assert all(offer.max_fee <= CAP for offer in row.offers.values())
        self.tally["actions"] += len(self._actions)
