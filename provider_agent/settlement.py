"""What the node does on chain for its own leases: collect, answer a suspension, close after a final receipt.

Each tick starts from what the contract says, so nothing is done twice and nothing depends on the last run. Leases stay
in the journal until they are settled, also those of jobs that left this host.
"""

import logging
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from everlease.chain.base import ChainWriter
from everlease.chain.contracts import Call, EscrowCalls
from everlease.chain.deployment import Deployment
from everlease.chain.errors import ChainError
from everlease.chain.keys import Key
from everlease.chain.memory_journal import MemoryJournal
from everlease.chain.sender import Sender
from everlease.chain.views import LeaseOnChain, Views
from everlease.domain.lease import LeaseState
from everlease.domain.money import pay_for
from everlease.domain.terms import LeaseParams, Receipt
from everlease.domain.transactions import IN_FLIGHT
from everlease.wire.terms import SignedReceipt
from provider_agent.journal import Journal
from provider_agent.records import LeaseRecord

log = logging.getLogger(__name__)
TICK_S = 5.0
CLOSE_AFTER_S = 60.0


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
        exposure: int,
        clock: Callable[[], float],
    ) -> None:
        self._views, self._calls = Views(chain, deployment), EscrowCalls(deployment)
        self._journal, self._exposure, self._clock = journal, exposure, clock
        self._key = key
        self._sent = MemoryJournal(clock)
        self._sender = Sender(chain, self._sent, {key.address: key}, clock=clock)
        self._tries: dict[str, int] = {}
        self._final_since: dict[str, float] = {}

    def tick(self) -> None:
        """Look at each lease that is not settled and send what is due. An RPC that is down or a full disk costs this
        tick alone.
        """
        try:
            for lease in self._journal.leases():
                self._attend(lease)
            self._sender.pump(self._key.address)
        except (ChainError, sqlite3.Error) as error:
            log.warning("settlement: %s", error)

    def _attend(self, lease: LeaseRecord) -> None:
        now = self._views.lease(lease.lease_id)
        if now.state is LeaseState.NONE:
            # Not opened yet, or over: an ended lease is freed on chain, and by then its job has counted its epoch.
            if self._views.job(lease.params.job_id).epochs >= lease.params.epoch:
                self._journal.put_lease(lease.model_copy(update={"settled": True}))
            return
        action = self._due(lease, now, self._journal.receipt(lease.lease_id))
        if action is not None:
            self._send(lease, action)

    def _due(self, lease: LeaseRecord, now: LeaseOnChain, signed: SignedReceipt | None) -> Action | None:
        receipt = signed.receipt.to_domain() if signed is not None else None
        signature = signed.signature if signed is not None else "0x"
        name, params = lease.lease_id, lease.params.to_domain()
        if now.state is LeaseState.SUSPENDED and self._clock() <= now.exit_at:
            if receipt is not None and _proves(receipt, params, now):
                return Action(self._calls.answer(params, receipt, signature), f"answer:{name}")
            return Action(self._calls.answer(params), f"answer:{name}")
        if receipt is None or now.state is LeaseState.SUSPENDED:
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
        """Journal the call unless one for this lease is on its way; a reverted one is tried anew under another key."""
        if any(row.job_id == lease.lease_id and row.state in IN_FLIGHT for row in self._sent.open(self._key.address)):
            return
        tries = self._tries[action.key] = self._tries.get(action.key, 0) + 1
        log.info("settlement: %s of lease %s", action.call.name, lease.lease_id[:10])
        self._sent.enqueue(
            f"{action.key}#{tries}", self._key.address, action.call.to, action.call.data, job_id=lease.lease_id
        )


def _proves(receipt: Receipt, params: LeaseParams, lease: LeaseOnChain) -> bool:
    """Whether a receipt shows that the node was not silent for as long as the suspension claims."""
    return receipt.final or receipt.seen_at + params.max_silence >= lease.ends_at
