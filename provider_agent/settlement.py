"""What the node does on chain for its own leases: collect, answer a suspension, close after a final receipt.

Each tick starts from what the contract says, so nothing is done twice and nothing depends on the last run. Leases stay
in the journal until they are settled, also those of jobs that left this host; those that the journal lost are found by
the chain's events.

A suspension is answered with a receipt that clears it: at once with a final one, with another after a minute in which
the watcher may send the final one, which pays more. Without either the answer admits a drop, so it waits as long as is
safe by the chain's clock (everlease.domain.silence). While a lease is suspended, whatever is on its way pays more with
each block: an answer waits for the nonces before it.
"""

import logging
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from everlease.chain.base import ChainWriter, Header
from everlease.chain.contracts import Call, EscrowCalls
from everlease.chain.deployment import Deployment
from everlease.chain.errors import ChainError
from everlease.chain.keys import Key
from everlease.chain.memory_journal import MemoryJournal
from everlease.chain.sender import Sender, SendPolicy
from everlease.chain.views import LeaseOnChain, Views
from everlease.domain.lease import LeaseState
from everlease.domain.money import pay_for
from everlease.domain.silence import bare_answer_at, clearing_answer_at, clears
from everlease.domain.transactions import IN_FLIGHT
from everlease.wire.terms import SignedReceipt
from provider_agent.journal import Journal
from provider_agent.own_leases import OwnLeases
from provider_agent.records import LeaseRecord

log = logging.getLogger(__name__)
TICK_S, URGENT_TICK_S = 5.0, 1.0
CLOSE_AFTER_S = 60.0
LOOK_EVERY_S = 15.0
"""How often the chain's events are read for leases of ours that are not in the journal."""
NEVER_OPENED_S = 3600
"""How long after its bid's deadline a lease that was never opened is forgotten: no reorg is that old."""
_ANSWER = "answer:"


class Action(NamedTuple):
    """One call to send, and what it is journaled under: the same act twice is one action."""

    call: Call
    key: str


class Settlement:
    """Blocking; call `tick` from a thread, one at a time. ``exposure``: base units to let pile up before a collect."""

    def __init__(
        self,
        chain: ChainWriter,
        deployment: Deployment,
        key: Key,
        journal: Journal,
        *,
        provider: str,
        exposure: int,
        clock: Callable[[], float],
    ) -> None:
        self._chain, self._window = chain, deployment.terms.answer_window
        self._views, self._calls = Views(chain, deployment), EscrowCalls(deployment)
        self._own = OwnLeases(chain, deployment, journal, provider=provider, node=key.address)
        self._look_at = 0.0
        self._journal, self._exposure, self._clock = journal, exposure, clock
        self._key = key
        self._sent = MemoryJournal(clock)
        keys = {key.address: key}
        self._patient = Sender(chain, self._sent, keys, clock=clock)
        self._urgent = Sender(chain, self._sent, keys, policy=SendPolicy(bump_after_s=0), clock=clock)
        self._tries: dict[str, int] = {}
        self._final_since: dict[str, float] = {}
        self._suspended: set[str] = set()

    def tick(self) -> None:
        """Look at each lease that is not settled and send what is due. An RPC that is down or a full disk costs this
        tick alone.
        """
        try:
            head = self._chain.header("latest")
            if head is None:
                return
            for lease in self._journal.leases():
                self._attend(lease, head.timestamp)
            (self._urgent if self.urgent else self._patient).pump(self._key.address)
            self._look(head)
        except (ChainError, sqlite3.Error) as error:
            log.warning("settlement: %s", error)

    @property
    def urgent(self) -> bool:
        """Whether an answer is on its way, or what it would have to wait for: then tick at least once a block."""
        rows = [row for row in self._sent.open(self._key.address) if row.state in IN_FLIGHT]
        return any(self._suspended or row.action_key.startswith(_ANSWER) for row in rows)

    def _look(self, head: Header) -> None:
        """Now and then, and again at once until all that was missed is read."""
        if self._clock() >= self._look_at and self._own.look(head):
            self._look_at = self._clock() + LOOK_EVERY_S

    def _attend(self, lease: LeaseRecord, chain_now: int) -> None:
        now = self._views.lease(lease.lease_id)
        (self._suspended.add if now.state is LeaseState.SUSPENDED else self._suspended.discard)(lease.lease_id)
        if now.state is LeaseState.NONE:
            # Not opened yet, or over: an ended lease is freed on chain, and by then its job has counted its epoch.
            never = 0 < lease.open_until < chain_now - NEVER_OPENED_S
            if never or self._views.job(lease.params.job_id).epochs >= lease.params.epoch:
                self._journal.put_lease(lease.model_copy(update={"settled": True}))
            return
        action = self._due(lease, now, self._journal.receipt(lease.lease_id), chain_now)
        if action is not None:
            self._send(lease, action)

    def _due(
        self, lease: LeaseRecord, now: LeaseOnChain, signed: SignedReceipt | None, chain_now: int
    ) -> Action | None:
        receipt = signed.receipt.to_domain() if signed is not None else None
        signature = signed.signature if signed is not None else "0x"
        name, params = lease.lease_id, lease.params.to_domain()
        if now.state is LeaseState.SUSPENDED:
            if chain_now > now.exit_at:
                return None
            suspended_at = now.exit_at - self._window
            if receipt is not None and clears(receipt, params.max_silence, now.ends_at):
                if not receipt.final and chain_now < clearing_answer_at(suspended_at, now.exit_at):
                    return None
                return Action(self._calls.answer(params, receipt, signature), f"{_ANSWER}{name}:{receipt.seq}")
            if chain_now >= bare_answer_at(suspended_at, now.exit_at):
                # What the newest receipt says is earned is paid all the same.
                return Action(self._calls.answer(params, receipt, signature), f"{_ANSWER}{name}:bare")
            return None
        if receipt is None:
            return None
        if receipt.final:
            since = self._final_since.setdefault(name, self._clock())
            if self._clock() - since > CLOSE_AFTER_S:
                return Action(self._calls.close(params, receipt, signature), f"close:{name}")
            return None
        fresh = receipt.earned - now.earned
        if fresh > 0 and pay_for(params.rate, fresh) >= self._exposure:
            return Action(self._calls.collect(params, receipt, signature), f"collect:{name}:{receipt.seq}")
        return None

    def _send(self, lease: LeaseRecord, action: Action) -> None:
        """Journal the call unless one for this lease is on its way; a reverted one is tried anew under another key.

        Nothing holds up an answer but another one, and of that the next version says what is known now.
        """
        answers = action.key.startswith(_ANSWER)
        queue = f"{_ANSWER}{lease.lease_id}" if answers else lease.lease_id
        for row in self._sent.open(self._key.address):
            if row.job_id == queue and row.state in IN_FLIGHT:
                if answers and row.data != action.call.data:
                    log.info("settlement: a better answer for lease %s", lease.lease_id[:10])
                    self._sent.amend(row.id, action.call.data)
                return
        tries = self._tries[action.key] = self._tries.get(action.key, 0) + 1
        log.info("settlement: %s of lease %s", action.call.name, lease.lease_id[:10])
        self._sent.enqueue(f"{action.key}#{tries}", self._key.address, action.call.to, action.call.data, job_id=queue)
