"""What became of a wallet's transaction: seen, in a block, overtaken, or not known yet."""

import time
from collections.abc import Iterator
from contextlib import suppress

from everlease.chain.base import ChainWriter, TxReceipt
from everlease.chain.errors import AlreadyKnown, ChainError, NonceTooLow, NotMined, Overtaken, Underpriced
from everlease.chain.wallet_record import SentTx, SentVersion

_RESEND_S = 5.0
_GRACE_S = 3.0
_SURE_S = 3.0
"""How long a used nonce without our receipt must be all that is seen: endpoints lag behind each other."""
_GAP_S = 10.0
"""How long a nonce below ours must be seen missing."""


def family(sent: SentTx) -> Iterator[SentTx]:
    """A transaction and those whose place it takes: one of them can be mined, and only one."""
    found: SentTx | None = sent
    while found is not None:
        yield found
        found = found.instead_of


class Fate:
    """Asks the chain about the transactions of one address, and sends lost ones again."""

    def __init__(self, chain: ChainWriter, address: str) -> None:
        self._chain, self._address = chain, address

    def mined(self, sent: SentTx) -> tuple[SentTx, TxReceipt] | None:
        """Which of its family is in a block, with its receipt."""
        versions = [(member, version.tx_hash) for member in family(sent) for version in member.versions]
        receipts = self._chain.receipts([tx_hash for _, tx_hash in versions])
        found = zip(versions, receipts, strict=True)
        return next(((member, receipt) for (member, _), receipt in found if receipt is not None), None)

    def is_known(self, sent: SentTx) -> bool:
        """Whether the chain has it, mined or not. One that was just sent may take a moment to be seen everywhere."""
        while True:
            if self.mined(sent) is not None or self._is_shown(sent):
                return True
            if not 0 <= time.time() - sent.at < _GRACE_S:
                return False
            time.sleep(0.2)

    def broadcast(self, version: SentVersion) -> None:
        """Hand the signed bytes over; again is fine. Raises what the chain refuses."""
        with suppress(AlreadyKnown):
            self._chain.send_raw(bytes.fromhex(version.raw[2:]))

    def follow(self, sent: SentTx, timeout_s: float) -> tuple[SentTx, TxReceipt]:
        """Which of its family was mined, once one is. Raises Overtaken; NotMined once the time is up, also where no
        endpoint answered, and sooner where a nonce below is missing."""
        began = resent = time.monotonic()
        pause, overtaken, gap, missing = 0.02, None, None, 0
        while True:
            now, trouble = time.monotonic(), None
            try:
                nonce = self._chain.nonce(self._address)  # before the receipt: a block may come between
                found = self.mined(sent)
                if found is not None:
                    return found
                overtaken = (overtaken or now) if nonce > sent.nonce and not self._is_shown(sent) else None
                missing = self._chain.next_nonce(self._address) if nonce < sent.nonce else nonce
                gap = (gap or now) if missing < sent.nonce else None
                if nonce <= sent.nonce and now - resent > _RESEND_S:
                    resent = now
                    self._resend(sent)
            except ChainError as error:
                trouble, overtaken, gap = error, None, None
            if overtaken is not None and now - overtaken > _SURE_S:
                raise Overtaken(sent.intent, sent.newest.tx_hash)
            if gap is not None and now - gap > _GAP_S:
                raise NotMined(sent.intent, sent.newest.tx_hash, missing)
            if now - began > timeout_s:
                raise NotMined(sent.intent, sent.newest.tx_hash) from trouble
            time.sleep(pause)
            pause = min(pause * 1.3, 1.0)

    def _is_shown(self, sent: SentTx) -> bool:
        return any(self._chain.knows(version.tx_hash) for member in family(sent) for version in member.versions)

    def _resend(self, sent: SentTx) -> None:
        if not self._chain.knows(sent.newest.tx_hash):
            with suppress(Underpriced, NonceTooLow):
                self.broadcast(sent.newest)
