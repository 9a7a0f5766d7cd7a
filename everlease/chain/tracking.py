"""What the chain says of journaled transactions: in a block, dropped by a reorg, displaced by a foreign one, final.

An outcome is provisional until its block is final: a reorg can turn a revert into a success and the other way round.
What is concluded for good comes from one answer of one endpoint that has the final block, so that endpoints which lag
or are on another fork can delay a conclusion but not falsify it.
"""

from collections.abc import Callable, Sequence

from everlease.chain.base import ChainWriter, Header, Standing, TxReceipt
from everlease.chain.errors import BadAnswer, CallReverted, RpcRefused
from everlease.chain.journal import Journal
from everlease.domain.transactions import IN_FLIGHT, PROVISIONAL, JournalTx, state_of


class Tracker:
    """Follows one key's transactions and notes in the journal what became of them.

    ``finality_depth``: blocks, where the chain has no finalized tag. ``displaced_after_s``: seconds that a foreign
    transaction must have been final at our nonce, beyond the proof itself, before ours is signed anew.
    """

    def __init__(
        self,
        chain: ChainWriter,
        journal: Journal,
        *,
        finality_depth: int,
        displaced_after_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._chain = chain
        self._journal = journal
        self._finality_depth = finality_depth
        self._displaced_after_s = displaced_after_s
        self._clock = clock

    def follow(self, sender: str, rows: Sequence[JournalTx]) -> Standing:
        """Note what changed for ``rows``; returns the answer that it was read from."""
        final = self._final_block()
        hashes = [tx_hash for row in rows for tx_hash in row.offers]
        standing = self._chain.standing(sender, final, hashes)
        found = dict(zip(hashes, standing.receipts, strict=True))
        gone = []
        for row in rows:
            receipt = next((r for tx_hash in row.offers if (r := found[tx_hash]) is not None), None)
            if receipt is not None:
                self._included(row, receipt, final=standing.anchored and receipt.block_number <= final.number)
            elif row.state in PROVISIONAL:
                gone.append(row)
            elif self._displaced(row, standing):
                self._journal.displaced(row.id, list(row.offers))
        self._drop(gone)
        return standing

    def _included(self, row: JournalTx, receipt: TxReceipt, *, final: bool) -> None:
        if row.state == state_of(receipt, final=final) and row.block_hash == receipt.block_hash:
            return
        error = "" if receipt.ok else self._why_reverted(row, receipt.block_number)
        self._journal.included(row.id, receipt, final=final, error=error)

    def _why_reverted(self, row: JournalTx, block: int) -> str:
        """The reason by calling again on the state after that block; what else the block did may hide it."""
        try:
            self._chain.call(row.to, row.data, sender=row.sender, at=block)
        except (CallReverted, RpcRefused) as error:
            return str(error)
        return f"reverted in block {block}; the same call works on the state after it"

    def _drop(self, rows: Sequence[JournalTx]) -> None:
        """Dropped is what was in a block whose place another block has; an endpoint without either only lags."""
        if not rows:
            return
        headers = self._chain.headers([row.block_number or 0 for row in rows])
        for row, header in zip(rows, headers, strict=True):
            if header is not None and row.block_hash is not None and header.hash != row.block_hash:
                self._journal.dropped(row.id, row.block_hash)

    def _displaced(self, row: JournalTx, standing: Standing) -> bool:
        """Whether its nonce is spent in a final block, by none of its own versions: no receipt says so."""
        return (
            row.state in IN_FLIGHT
            and row.nonce is not None
            and row.nonce < standing.final_nonce
            and self._clock() - row.sent_at > self._displaced_after_s
        )

    def _final_block(self) -> Header:
        tagged = self._chain.header("finalized")
        if tagged is not None:
            return tagged
        latest = self._chain.header("latest")
        found = self._chain.header(max(0, latest.number - self._finality_depth)) if latest is not None else None
        if found is None:
            raise BadAnswer("the endpoint lacks a block below its own head")
        return found
