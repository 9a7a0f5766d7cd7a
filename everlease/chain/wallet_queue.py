"""One wallet's transactions, one at a time for all processes of a machine, and none twice after an interruption.

A wallet's folder (0700) holds
  lock       flock of whoever sends: held from the first look at balance, allowance and nonces until the block
  sent.json  the transaction under way (0600): there before it is sent, gone once its fate is known

A new transaction takes its nonce after the fate of the one before is known, so the two never compete.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from everlease.chain.base import ChainWriter, TxReceipt
from everlease.chain.contracts import Call
from everlease.chain.errors import (
    AlreadyKnown,
    BadAnswer,
    CallReverted,
    ChainError,
    NonceTooLow,
    NotMined,
    Overtaken,
    RpcRefused,
    RpcUnavailable,
    Underpriced,
)
from everlease.chain.keys import Key
from everlease.chain.signing import sign_transaction
from everlease.chain.wallet_record import SentRecord, SentTx, SentVersion
from everlease.domain.transactions import FeeOffer
from everlease.locking import take

_ATTEMPTS = 5
_RESEND_S = 5.0
_GRACE_S = 3.0
_OVERTAKEN_S = 3.0
"""How long a used nonce without our receipt must be all that is seen: endpoints lag behind each other."""


class SendInterrupted(KeyboardInterrupt):
    """Ctrl-C after a transaction was handed to the chain, or while it was."""

    def __init__(self, intent: str, tx_hash: str) -> None:
        super().__init__(
            f"{intent}: sent ({tx_hash}), not seen in a block yet. It can't be taken back; the same command again "
            "waits for it and sends nothing twice"
        )
        self.intent, self.tx_hash = intent, tx_hash


class WalletQueue:
    """Sends for one key. ``note`` gets one sentence about what waits, or became of an interrupted transaction."""

    def __init__(
        self,
        chain: ChainWriter,
        key: Key,
        folder: Path,
        note: Callable[[str], None] = lambda _: None,
        *,
        timeout_s: float = 60.0,
    ) -> None:
        self._chain, self._key, self._folder, self._note = chain, key, folder, note
        self._timeout_s = timeout_s
        self._record = SentRecord(folder / "sent.json", note)
        self._threads = threading.RLock()
        self._depth = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else on this machine sends for the wallet meanwhile. Waits for its turn; turns may be nested."""
        with self._threads:
            handle = self._take() if self._depth == 0 else None
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if handle is not None:
                    os.close(handle)

    def settle(self, intent: str = "") -> TxReceipt | None:
        """Bring what an interrupted command left under way to its end; call it in a turn before anything is read.

        Returns the receipt of a transaction with the same ``intent``: then there is nothing left to send. A transaction
        that never reached the chain is sent again for the same intent, else forgotten; its nonce goes to the next, so
        it can't be mined later. Raises NotMined where it still waits.
        """
        sent = self._record.read()
        if sent is None:
            return None
        begun = f"{sent.intent}: begun {time.strftime('%Y-%m-%d %H:%M', time.localtime(sent.at))} and interrupted"
        if self._is_known(sent):
            sent = self._raised(sent)
        elif sent.intent != intent or not self._sends_again(sent):
            self._note(f"{begun} before it reached the chain; nothing was sent")
            self._record.forget()
            return None
        try:
            receipt = self._await(sent)
        except (CallReverted, Overtaken) as error:
            self._note(f"{begun}; it came to nothing: {error}")
            return None
        self._note(f"{begun}; it is in block {receipt.block_number} ({receipt.tx_hash})")
        return receipt if sent.intent == intent else None

    def send(self, intent: str, make: Callable[[], Call]) -> TxReceipt:
        """Send the call that ``make`` builds, in a turn, from what is true then; returns once it is in a block.

        ``intent`` says in words what the call does. The same intent again after an interruption ends the earlier
        transaction and sends no other. Raises what ``make`` raises, CallReverted before anything is sent, NotMined,
        Overtaken, SendInterrupted.
        """
        with self.turn():
            done = self.settle(intent)
            if done is not None:
                return done
            for _ in range(_ATTEMPTS):
                try:
                    return self._once(intent, make)
                except NonceTooLow:  # another program sent meanwhile: everything is read anew
                    continue
            raise ChainError(f"{intent}: not sent; another program sends for {self._key.address} all the time")

    # -- one transaction --

    def _once(self, intent: str, make: Callable[[], Call]) -> TxReceipt:
        version = None
        try:
            sent = self._signed(intent, make())
            self._record.write(sent)
            version = sent.newest
            self._hand_over(sent)
            return self._await(sent)
        except KeyboardInterrupt as error:
            if version is not None:
                raise SendInterrupted(intent, version.tx_hash) from error
            self._record.forget()
            raise KeyboardInterrupt(f"{intent}: not sent") from error

    def _hand_over(self, sent: SentTx) -> None:
        """Raises what the chain refuses. Where nobody answers it may have arrived all the same: waiting shows."""
        try:
            self._broadcast(sent.newest)
        except (RpcUnavailable, BadAnswer):
            return
        except RpcRefused as error:
            if isinstance(error, NonceTooLow) and self._is_known(sent):
                return
            self._record.forget()
            raise

    def _signed(self, intent: str, call: Call) -> SentTx:
        gas = self._chain.estimate_gas(self._key.address, call.to, call.data) * 5 // 4
        nonce = self._chain.next_nonce(self._key.address)
        fees = self._chain.fees()
        offer = FeeOffer(2 * fees.base_fee + fees.priority_fee, fees.priority_fee)
        draft = SentTx(intent, nonce, call.to, "0x" + call.data.hex(), gas, time.time(), [])
        return self._with_version(draft, offer)

    def _with_version(self, sent: SentTx, offer: FeeOffer) -> SentTx:
        data = bytes.fromhex(sent.data[2:])
        raw, tx_hash = sign_transaction(self._key, self._chain.chain_id(), sent.nonce, sent.to, data, sent.gas, offer)
        version = SentVersion("0x" + raw.hex(), tx_hash, offer.max_fee, offer.priority_fee)
        return msgspec.structs.replace(sent, versions=[*sent.versions, version])

    def _raised(self, sent: SentTx) -> SentTx:
        """The same with a dearer version, if the market asks more than the newest one offers (EIP-1559 pools take a
        replacement from 10 % more)."""
        fees, offered = self._chain.fees(), sent.newest
        if fees.base_fee + fees.priority_fee <= offered.max_fee:
            return sent
        market = FeeOffer(2 * fees.base_fee + fees.priority_fee, fees.priority_fee)
        raised = self._with_version(
            sent,
            FeeOffer(
                max(market.max_fee, offered.max_fee * 5 // 4 + 1),
                max(market.priority_fee, offered.priority_fee * 5 // 4 + 1),
            ),
        )
        self._record.write(raised)
        with suppress(Underpriced, NonceTooLow):
            self._broadcast(raised.newest)
        return raised

    def _sends_again(self, sent: SentTx) -> bool:
        """Hand the same bytes over once more; False where they would do nothing any more."""
        if self._chain.next_nonce(self._key.address) != sent.nonce:
            return False
        try:
            self._chain.estimate_gas(self._key.address, sent.to, bytes.fromhex(sent.data[2:]))
            self._broadcast(sent.newest)
        except (CallReverted, NonceTooLow, Underpriced):
            return False
        return True

    def _broadcast(self, version: SentVersion) -> None:
        with suppress(AlreadyKnown):
            self._chain.send_raw(bytes.fromhex(version.raw[2:]))

    # -- until its fate is known --

    def _is_known(self, sent: SentTx) -> bool:
        """Whether the chain has it, mined or not. One that was just sent may take a moment to be seen everywhere."""
        while True:
            if self._receipt(sent) or any(self._chain.knows(version.tx_hash) for version in sent.versions):
                return True
            if not 0 <= time.time() - sent.at < _GRACE_S:
                return False
            time.sleep(0.2)

    def _await(self, sent: SentTx) -> TxReceipt:
        receipt = self._poll(sent)
        self._record.forget()
        if not receipt.ok:
            # Raises with the contract's reason, where that still holds.
            self._chain.estimate_gas(self._key.address, sent.to, bytes.fromhex(sent.data[2:]))
            raise CallReverted("Unknown", {"transaction": receipt.tx_hash})
        return receipt

    def _poll(self, sent: SentTx) -> TxReceipt:
        """Raises NotMined once the time is up, also where no endpoint answered."""
        began = resent = time.monotonic()
        pause, overtaken = 0.02, None
        while True:
            now, trouble = time.monotonic(), None
            try:
                receipt = self._receipt(sent)
                if receipt is not None:
                    return receipt
                if self._chain.nonce(self._key.address) <= sent.nonce:
                    overtaken = None
                    if now - resent > _RESEND_S:
                        resent = now
                        self._resend(sent)
                else:
                    overtaken = overtaken or now
            except ChainError as error:
                trouble = error
            if overtaken is not None and now - overtaken > _OVERTAKEN_S:
                self._record.forget()
                raise Overtaken(sent.intent, sent.newest.tx_hash)
            if now - began > self._timeout_s:
                raise NotMined(sent.intent, sent.newest.tx_hash) from trouble
            time.sleep(pause)
            pause = min(pause * 1.3, 1.0)

    def _resend(self, sent: SentTx) -> None:
        if not self._chain.knows(sent.newest.tx_hash):
            with suppress(Underpriced, NonceTooLow):
                self._broadcast(sent.newest)

    def _receipt(self, sent: SentTx) -> TxReceipt | None:
        found = self._chain.receipts([version.tx_hash for version in sent.versions])
        return next((receipt for receipt in found if receipt is not None), None)

    # -- its turn --

    def _take(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self._folder / "lock"
        try:
            return take(lock)
        except BlockingIOError:
            self._note("another command is sending for this wallet: waiting for it")
            return take(lock, wait=True)
