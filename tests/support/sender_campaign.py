"""One seeded fault schedule for the sender: whatever fails, each action has exactly one effect on the canonical chain.

Faults: a crash before or after any call of chain or journal, endpoints that fail, lag, stand on another fork or accept
and then time out or forget, lost pools, reorgs above finality, foreign transactions at our nonces, gas spikes above the
cap, a second process on the same key, which believes that it holds the lock too, and transactions that revert in one
block and succeed in another.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eth_account import Account

from everlease.chain.errors import AlreadyKnown, BadAnswer, CallReverted, NonceTooLow, RpcUnavailable, Underpriced
from everlease.chain.journal import Journal
from everlease.chain.keys import Key
from everlease.chain.memory import Emitted, MemoryChain
from everlease.chain.sender import Sender, SendPolicy
from everlease.domain.transactions import JournalTx
from tests.support.sender_journals import Desk, MemoryDesk

TARGET = "0x" + "aa" * 20
GWEI = 10**9
FINALITY = 6
CAP = 40 * GWEI
OURS, RIVAL = 0, 1


class Crash(Exception):
    """The process dies here."""


@dataclass(frozen=True, slots=True)
class Action:
    """What must have one effect. ``kind`` is how the contract and its caller go about it:

    plain: it never reverts. patient: it may, the contract lets it happen any number of times, and its caller journals
    it again (the same key) once it has failed for good. hasty: it may revert, the contract lets it happen once, and its
    caller journals another attempt (another key) as soon as a block holds a revert, final or not.
    """

    name: str
    kind: str
    sender: str

    @property
    def job(self) -> str:
        return self.name.split(":")[0]

    @property
    def data(self) -> bytes:
        return f"{self.kind}|{self.name}".encode()


class Endpoints:
    """Several URLs in front of one chain: each call is answered by one of them, which may be out of date."""

    def __init__(self, schedule: "Schedule") -> None:
        self._schedule = schedule

    def __getattr__(self, name: str) -> Any:
        schedule = self._schedule

        def call(*arguments: Any, **named: Any) -> Any:
            schedule.maybe_crash()
            fault = schedule.chance.random()
            if fault < schedule.rate:
                raise RpcUnavailable(name, "every endpoint failed")
            stale = fault < 2 * schedule.rate
            answer = schedule.ask(schedule.outdated() if stale else schedule.chain, name, *arguments, **named)
            if 2 * schedule.rate <= fault < 3 * schedule.rate:
                raise RpcUnavailable(name, "timed out after it was accepted")
            schedule.maybe_crash()
            return answer

        return call


class Process:
    """The journal as one process sees it; with ``deluded`` its lock is always granted."""

    def __init__(self, schedule: "Schedule", journal: Journal, *, deluded: bool) -> None:
        self._schedule = schedule
        self._journal = journal
        self._deluded = deluded

    @contextmanager
    def hold(self, sender: str) -> Iterator[bool]:
        with self._journal.hold(sender) as held:
            yield held or self._deluded

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._journal, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._schedule.maybe_crash()
            self._schedule.maybe_interleave()
            answer = method(*arguments, **named)
            self._schedule.maybe_crash()
            return answer

        return call


class Schedule:
    """``run`` plays it; ``tally`` counts what happened. Raises AssertionError where an action has no or two effects, or
    where the journal calls an outcome final that the chain doesn't have, now or later."""

    def __init__(self, seed: int, desk: Callable[[Callable[[], float]], Desk] = MemoryDesk) -> None:
        self.chance = random.Random(seed)
        self.chain = MemoryChain(finality=FINALITY, contract=self._contract)
        self.now = 1000.0
        self.desk = desk(lambda: self.now)
        self.rate = self.chance.choice([0.0, 0.02, 0.1])
        self.tally: Counter[str] = Counter()
        self._seed = seed
        self._crash_rate = self.chance.choice([0.0, 0.005, 0.02])
        self._revert_rate = self.chance.choice([0.0, 0.2, 0.5])
        self._deluded = self.chance.random() < 0.3
        self._keys = [Key.of(bytes([5 + number]) * 32) for number in range(2)]
        self._actions: list[Action] = []
        self._attempts: Counter[str] = Counter()
        self._inside = False
        self._simulating = False
        self._deepest = self.chance.randint(1, FINALITY - 1)
        self._forks = [self.chain.fork()]
        self._sent: list[bytes] = []
        self._block: tuple[str, set[str]] = ("", set())
        self._seen: dict[str, set[str]] = {}
        self._senders = {process: self._start(process) for process in (OURS, RIVAL)}

    def run(self) -> None:
        """A history of enqueues, pumps, blocks and faults; then quiet, until the journal is empty; then the checks."""
        chance = self.chance
        try:
            for _ in range(chance.randrange(8, 25)):
                for _ in range(chance.randrange(3)):
                    self._enqueue()
                self.chain.base_fee = chance.choice([1, 1, 1, 5, 20, 200]) * GWEI
                for key in self._keys:
                    self._pump(OURS, key)
                self._forks = [*self._forks[-4:], self.chain.fork()]
                self._trouble()
                self.chain.mine(chance.randrange(3))
                self.now += chance.choice([1, 12, 40])
                self._observe()
            self._settle()
            self._check()
        finally:
            self.desk.close()

    # -- the contract --

    def _contract(self, sender: str, to: str, data: bytes) -> list[Emitted]:
        if to != TARGET:
            return []
        kind, name = data.decode().split("|")
        head = self.chain.header("latest")
        assert head is not None
        if kind != "plain" and self._unlucky(name, head.hash):
            raise CallReverted("NotNow", {})
        if kind == "hasty" and self._happened(name, head.hash):
            raise CallReverted("Already", {})
        return [(TARGET, (), name.encode())]

    def _unlucky(self, name: str, parent: str) -> bool:
        """Whether it reverts on top of this block; a simulation, which sees another moment, seldom does."""
        if self._simulating:
            return self.chance.random() < self._revert_rate / 5
        return random.Random(f"{self._seed}{name}{parent}").random() < self._revert_rate

    def _happened(self, name: str, parent: str) -> bool:
        """Whether it took effect, earlier in the chain or in the block that is being made."""
        if name in self._effects():
            return True
        if self._simulating:
            return False
        if self._block[0] != parent:
            self._block = (parent, set())
        found = name in self._block[1]
        self._block[1].add(name)
        return found

    def _effects(self) -> Counter[str]:
        return Counter(log.data.decode() for log in self.chain.logs([TARGET], 0, 10**6))

    # -- callers --

    def _enqueue(self) -> None:
        """A new action, or one that is there already (the same event came twice)."""
        if self._actions and self.chance.random() < 0.2:
            self._journal(self.chance.choice(self._actions))
            return
        number = len(self._actions)
        kind = self.chance.choice(["plain", "patient", "hasty"]) if self._revert_rate else "plain"
        sender = self._keys[self.chance.randrange(2)].address
        self._actions.append(Action(f"job{self.chance.randrange(4)}:{number}:open", kind, sender))
        self._journal(self._actions[-1])

    def _journal(self, action: Action, *, again: bool = False) -> None:
        key = f"{action.name}/{self._attempts[action.name]}"
        self.desk.enqueue(key, action.sender, TARGET, action.data, action.job, again=again)

    def _observe(self) -> None:
        """Callers look at what became of their actions and try again; every outcome that is final must hold."""
        rows = {row.action_key: row for row in self.desk.rows()}
        self._hold_to(list(rows.values()))
        effects = self._effects()
        for action in self._actions:
            row = rows[f"{action.name}/{self._attempts[action.name]}"]
            if action.kind == "patient" and row.state == "failed":
                self.tally["tried again"] += 1
                self._seen.pop(row.action_key, None)
                self._journal(action, again=True)
            elif action.kind == "hasty" and row.state in ("reverted", "failed") and not effects[action.name]:
                self.tally["tried again"] += 1
                self._attempts[action.name] += 1
                self._journal(action)

    def _hold_to(self, rows: list[JournalTx]) -> None:
        for row in rows:
            if row.state in ("mined", "reverted"):
                self._seen.setdefault(row.action_key, set()).add(row.state)
            if row.state not in ("final", "failed"):
                continue
            found = [receipt for receipt in self.chain.receipts(list(row.offers)) if receipt is not None]
            outcomes = [(receipt.ok, receipt.block_hash) for receipt in found]
            expected = [] if row.block_hash is None else [(row.state == "final", row.block_hash)]
            assert outcomes == expected, (row.action_key, row.state, outcomes)

    # -- processes --

    def _start(self, process: int) -> Sender:
        """A new process: nothing of the one before is left but the journal."""
        policy = SendPolicy(max_fee_cap=CAP, displaced_after_s=30.0, bump_after_s=15.0, max_in_flight=5)
        keys = {key.address: key for key in self._keys}
        journal = Process(self, self.desk.start(process), deluded=self._deluded)
        return Sender(Endpoints(self), journal, keys, policy=policy, clock=lambda: self.now)  # type: ignore[arg-type]

    def _pump(self, process: int, key: Key) -> None:
        try:
            if self._senders[process].pump(key.address).busy:
                self.tally["busy"] += 1
        except Crash:
            self.tally["crashes"] += 1
            self._senders[process] = self._start(process)
        except (RpcUnavailable, BadAnswer):
            self.tally["refusals"] += 1

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
                self._pump(RIVAL, key)
        finally:
            self._inside = False

    # -- what goes wrong outside --

    def ask(self, chain: MemoryChain, name: str, *arguments: Any, **named: Any) -> Any:
        """One endpoint's answer."""
        self._simulating = name in ("estimate_gas", "call")
        if name == "send_raw":
            self._sent.append(arguments[0])
        try:
            return getattr(chain, name)(*arguments, **named)
        finally:
            self._simulating = False

    def outdated(self) -> MemoryChain:
        """A node that has heard nothing for a while: blocks behind, or on a fork that is none any more."""
        self.tally["outdated"] += 1
        return self.chance.choice(self._forks)

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
                self._block = ("", set())
                self.tally["reorgs"] += 1
                self._remember()
        if chance.random() < 0.1:
            key = chance.choice(self._keys)
            self._foreign(key, self.chain.nonce(key.address))

    def _remember(self) -> None:
        """After a reorg, nodes offer what they still hold: versions that were replaced or displaced long ago."""
        for raw in self.chance.sample(self._sent, min(4, len(self._sent))):
            try:
                self.chain.send_raw(raw)
                self.tally["old versions"] += 1
            except (NonceTooLow, AlreadyKnown, Underpriced):
                continue

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

    # -- the end --

    def _settle(self) -> None:
        self.rate = self._crash_rate = self._revert_rate = 0.0
        self.chain.base_fee = GWEI
        for _ in range(200):
            for key in self._keys:
                self._pump(OURS, key)
            self.chain.mine()
            self.now += 20
            self._observe()
            if all(row.state in ("final", "failed") for row in self.desk.rows()):
                return
        raise AssertionError("the journal did not empty in 200 rounds")

    def _check(self) -> None:
        effects = self._effects()
        expected = Counter(action.name for action in self._actions)
        assert effects == expected, {name: effects[name] for name in expected if effects[name] != 1}
        rows = self.desk.rows()
        for action in self._actions:
            states = [row.state for row in rows if row.action_key.rsplit("/", 1)[0] == action.name]
            assert states.count("final") == 1, (action.name, states)
        assert all(offer.max_fee <= CAP for row in rows for offer in row.offers.values())
        self.tally["actions"] += len(self._actions)
        self.tally["turned round"] += sum(len(states) == 2 for states in self._seen.values())
        self.tally["reverted"] += sum(row.state == "failed" for row in rows)
