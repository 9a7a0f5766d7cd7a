"""Sends journaled transactions: each exactly once in effect, whatever dies in between.

One pump: follow (everlease.chain.tracking) → fill nonce gaps → send again what got lost → send what is new → follow.
A version is journaled before it is sent, a nonce never changes hands, and the same raw bytes are sent again after a
crash or a reorg; so a repeat is the same transaction, not a second one. Fees: EIP-1559.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes

from everlease.chain.base import ChainWriter, Standing
from everlease.chain.errors import AlreadyKnown, CallReverted, KeyRefused, NonceTooLow, RpcRefused, Underpriced
from everlease.chain.journal import Journal
from everlease.chain.keys import Key
from everlease.chain.offers import MAX_FEE, dearer, market_offer
from everlease.chain.signing import sign_transaction
from everlease.chain.tracking import Tracker
from everlease.domain.transactions import IN_FLIGHT, FeeOffer, JournalTx, NonceTaken

_MAX_GAPS_PER_PUMP = 20


@dataclass(frozen=True, slots=True)
class SendPolicy:
    """When to pay more and when to believe. Fees in wei per gas, times in seconds.

    ``bump_after_s``: how long a version must have waited before a dearer one takes its place, if a block came without
    it meanwhile: on a chain that stands still no fee makes it faster. ``finality_depth`` is used where the chain has no
    finalized tag. ``displaced_after_s``: how long a foreign transaction at our nonce must be all that is seen before
    ours is signed anew.
    """

    max_fee_cap: int = MAX_FEE
    bump_after_s: float = 15.0
    bump_percent: int = 125
    finality_depth: int = 12
    displaced_after_s: float = 30.0
    max_in_flight: int = 32


@dataclass(frozen=True, slots=True)
class PumpReport:
    """What one pump left: ``open`` transactions that still need pumping. ``busy``: another process is the sender."""

    open: int = 0
    problem: str = ""
    busy: bool = False


class Sender:
    """Sends for the keys that it holds; safe to pump from several processes and after a kill at any point."""

    def __init__(
        self,
        chain: ChainWriter,
        journal: Journal,
        keys: Mapping[str, Key],
        *,
        policy: SendPolicy = SendPolicy(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chain = chain
        self._journal = journal
        self._keys = {address.lower(): key for address, key in keys.items()}
        self._policy = policy
        self._clock = clock
        self._tracker = Tracker(
            chain,
            journal,
            finality_depth=policy.finality_depth,
            displaced_after_s=policy.displaced_after_s,
            clock=clock,
        )
        self._chain_id: int | None = None

    def pump(self, sender: str) -> PumpReport:
        """Do all work there is for ``sender`` once and return. Raises RpcUnavailable (retryable), KeyRefused."""
        sender = sender.lower()
        if sender not in self._keys:
            raise KeyRefused(f"this process holds no key for {sender}")
        with self._journal.hold(sender) as held:
            if not held:
                return PumpReport(busy=True)
            try:
                return self._pump(sender)
            except NonceTaken:
                return PumpReport(busy=True)

    def _pump(self, sender: str) -> PumpReport:
        rows = self._journal.open(sender)
        if not rows:
            return PumpReport()
        problem = self._send_all(sender, self._tracker.follow(sender, rows))
        rows = self._journal.open(sender)
        if any(row.raw is not None and row.state in IN_FLIGHT for row in rows):
            self._tracker.follow(sender, rows)
            rows = self._journal.open(sender)
        return PumpReport(len(rows), problem)

    def _send_all(self, sender: str, standing: Standing) -> str:
        """Gaps, lost ones, new ones; returns why it stopped, or nothing."""
        if not standing.anchored:
            return "the endpoint that answered lacks the final block: nothing is sent on its word"
        rows = [row for row in self._journal.open(sender) if row.state in IN_FLIGHT]
        nonces = sorted(row.nonce for row in rows if row.nonce is not None)
        problem = self._fill_gaps(sender, standing.nonce, nonces)
        if problem:
            return problem
        for row in rows:
            if row.nonce is not None and row.nonce >= standing.nonce:
                problem = self._resend(row, standing.head, is_next=row.nonce == nonces[0])
                if problem:
                    return problem
        return self._send_new(sender, standing)

    def _fill_gaps(self, sender: str, mined_nonce: int, nonces: Sequence[int]) -> str:
        """A transaction of ours waits above an empty nonce: put there what was there, or a transfer of nothing.

        That transfer is the one thing sent that is not journaled: it has no effect, however often it is made.
        """
        missing = [n for n in range(mined_nonce, max(nonces, default=mined_nonce)) if n not in nonces]
        for nonce in missing[:_MAX_GAPS_PER_PUMP]:
            raw = self._journal.raw_at(sender, nonce)
            if raw is None:
                raw, _ = self._sign(sender, nonce, sender, b"", 0, 21_000, self._market_offer())
            try:
                self._broadcast(raw)
            except Underpriced:
                continue  # a dearer transaction waits there already: the gap will close
            except RpcRefused as error:
                return str(error)
        return ""

    def _resend(self, row: JournalTx, head: int, *, is_next: bool) -> str:
        assert row.raw is not None
        assert row.tx_hash is not None
        if row.state == "sent" and self._was_passed_over(row, head):
            return self._replace(row, head, is_next=is_next)
        if row.state != "sent" or not self._chain.knows(row.tx_hash):
            return self._deliver(row, row.raw, head)
        return ""

    def _was_passed_over(self, row: JournalTx, head: int) -> bool:
        """Whether a block came that could have had the newest version, and time enough went by."""
        return head > row.sent_head and self._clock() - row.sent_at >= self._policy.bump_after_s

    def _replace(self, row: JournalTx, head: int, *, is_next: bool) -> str:
        """Sign a dearer version for the same nonce. The present one is sent again at the cap, and where it pays the
        market but waits behind a lower nonce: a higher fee would not make it any faster."""
        assert row.nonce is not None
        assert row.raw is not None
        assert row.tx_hash is not None
        market, offered, percent = self._market_offer(), row.offers[row.tx_hash], self._policy.bump_percent
        offer = dearer(offered, market, self._policy.max_fee_cap, percent)
        waits = not is_next and offered.max_fee >= market.max_fee
        if waits or offer is None:
            return self._deliver(row, row.raw, head)
        raw, tx_hash = self._sign(row.sender, row.nonce, row.to, row.data, row.value, self._gas(row), offer)
        self._journal.signed(row.id, row.nonce, raw, tx_hash, offer, head)
        return self._deliver(row, raw, head)

    def _gas(self, row: JournalTx) -> int:
        """Gas limit for another version: what the call needs now, or where it would revert now, what it had."""
        assert row.raw is not None
        try:
            return self._estimate(row)
        except (CallReverted, RpcRefused):
            return int(TypedTransaction.from_bytes(HexBytes(row.raw)).as_dict()["gas"])

    def _estimate(self, row: JournalTx) -> int:
        return self._chain.estimate_gas(row.sender, row.to, row.data, row.value) * 5 // 4

    def _send_new(self, sender: str, standing: Standing) -> str:
        rows = [row for row in self._journal.open(sender) if row.state in IN_FLIGHT]
        waiting = {row.job_id for row in rows if row.raw is not None and row.job_id}
        in_flight = sum(row.raw is not None for row in rows)
        nonce = max(standing.nonce, self._journal.highest_nonce(sender) + 1)
        for row in rows:
            if row.raw is not None or row.job_id in waiting:
                continue
            if in_flight >= self._policy.max_in_flight:
                break
            try:
                gas = self._estimate(row)
            except CallReverted as error:
                self._journal.refused(row.id, str(error))
                continue
            except RpcRefused as error:
                self._journal.troubled(row.id, str(error))
                return str(error)
            offer = self._market_offer()
            raw, tx_hash = self._sign(sender, nonce, row.to, row.data, row.value, gas, offer)
            self._journal.signed(row.id, nonce, raw, tx_hash, offer, standing.head)
            nonce, in_flight = nonce + 1, in_flight + 1
            if row.job_id:
                waiting.add(row.job_id)
            problem = self._deliver(row, raw, standing.head)
            if problem:
                return problem
        return ""

    def _deliver(self, row: JournalTx, raw: bytes, head: int) -> str:
        """Broadcast and record; returns a problem that stops this pump, or nothing."""
        try:
            self._broadcast(raw)
        except Underpriced as error:
            self._journal.sent(row.id, head)
            self._journal.troubled(row.id, str(error))
            return ""
        except RpcRefused as error:
            self._journal.troubled(row.id, str(error))
            return str(error)
        self._journal.sent(row.id, head)
        return ""

    def _broadcast(self, raw: bytes) -> None:
        try:
            self._chain.send_raw(raw)
        except (AlreadyKnown, NonceTooLow):
            return

    def _market_offer(self) -> FeeOffer:
        return market_offer(self._chain.fees(), self._policy.max_fee_cap)

    def _sign(
        self, sender: str, nonce: int, to: str, data: bytes, value: int, gas: int, offer: FeeOffer
    ) -> tuple[bytes, str]:
        if self._chain_id is None:
            self._chain_id = self._chain.chain_id()
        return sign_transaction(self._keys[sender], self._chain_id, nonce, to, data, gas, offer, value=value)
