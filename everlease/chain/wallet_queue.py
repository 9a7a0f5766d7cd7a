"""One wallet's transactions, one at a time for all processes of a machine, and none twice after an interruption.

A wallet's folder (0700) holds
  lock       flock of whoever sends: held from the first look at balance, allowance and nonces until the block
  sent.json  the transaction under way (0600): there before it is sent, gone once its fate is known

A new transaction takes its nonce after the fate of the one before is known, or takes the nonce of one that no endpoint
shows: of two, never both are mined.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from everlease.chain.base import ChainWriter, TxReceipt
from everlease.chain.contracts import Call
from everlease.chain.errors import (
    BadAnswer,
    CallReverted,
    ChainError,
    NonceHeld,
    NonceTooLow,
    Overtaken,
    RpcRefused,
    RpcUnavailable,
    TooDear,
    Underpriced,
    WalletFolder,
)
from everlease.chain.keys import Key
from everlease.chain.offers import MAX_FEE, dearer, market_offer
from everlease.chain.signing import sign_transaction
from everlease.chain.wallet_fate import Fate
from everlease.chain.wallet_record import SentRecord, SentTx, SentVersion, is_signed
from everlease.domain.transactions import FeeOffer
from everlease.durable import private_folder
from everlease.locking import take

_ATTEMPTS = 5
_LOOK_S = 0.1
_TOLD_AFTER_S = 1.0
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}


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
        self._fate = Fate(chain, key.address)
        self._record = SentRecord(
            folder / "sent.json", note, lambda sent: is_signed(sent, key.address, chain.chain_id())
        )
        self._told = set[str]()
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
        that no endpoint shows is sent again for the same intent; else the next one takes its nonce, so that only one of
        the two can be mined. Raises NotMined where it still waits, SendInterrupted.
        """
        sent = self._record.read()
        if sent is None:
            return None
        try:
            return self._settled(sent, intent)
        except KeyboardInterrupt as error:
            raise SendInterrupted(sent.intent, sent.newest.tx_hash) from error

    def send(self, intent: str, make: Callable[[], Call]) -> TxReceipt:
        """Send the call that ``make`` builds, in a turn, from what is true then; returns once it is in a block.

        ``intent`` says in words what the call does. The same intent again after an interruption ends the earlier
        transaction and sends no other. Raises what ``make`` raises, CallReverted before anything is sent, NonceHeld,
        NotMined, Overtaken, SendInterrupted.
        """
        with self.turn():
            for _ in range(_ATTEMPTS):
                done = self.settle(intent)
                if done is not None:
                    return done
                try:
                    if not self._gave_way(intent):
                        return self._once(intent, make)
                except NonceTooLow:  # another program sent meanwhile: everything is read anew
                    continue
            raise NonceHeld(intent, self._chain.nonce(self._key.address))

    # -- what an interrupted command left --

    def _settled(self, sent: SentTx, intent: str) -> TxReceipt | None:
        if self._fate.mined(sent) is None:
            if self._fate.is_known(sent):
                sent = self._raised(sent)
            elif not self._goes_on(sent, intent):
                return None
            self._note(f"{_begun(sent)}: waiting up to {self._timeout_s:g} s for its block")
        try:
            found, receipt = self._await(sent)
        except (CallReverted, Overtaken) as error:
            self._note(f"{_begun(sent)}; it came to nothing: {error}")
            return None
        self._note(f"{_begun(found)}; it is in block {receipt.block_number} ({receipt.tx_hash})")
        return receipt if found.intent == intent else None

    def _goes_on(self, sent: SentTx, intent: str) -> bool:
        """Whether one that no endpoint shows is waited for: its nonce is used, or it was handed over once more."""
        nonce = self._chain.nonce(self._key.address)
        if nonce > sent.nonce or (sent.intent == intent and self._sends_again(sent)):
            return True
        if nonce < sent.nonce:
            told = f"; it waits for a transaction {nonce} of this wallet, which this chain does not have: forgotten"
            self._record.forget()
        else:
            told = "; not seen by the chain yet: the next transaction takes its place, only one of them can be mined"
        if sent.newest.tx_hash not in self._told:
            self._told.add(sent.newest.tx_hash)
            self._note(f"{_begun(sent)}{told}")
        return False

    def _sends_again(self, sent: SentTx) -> bool:
        """Hand the same bytes over once more; False where they would do nothing any more."""
        if self._chain.next_nonce(self._key.address) != sent.nonce:
            return False
        try:
            self._chain.estimate_gas(self._key.address, sent.to, bytes.fromhex(sent.data[2:]))
            self._fate.broadcast(sent.newest)
        except (CallReverted, NonceTooLow, Underpriced):
            return False
        return True

    # -- one transaction --

    def _gave_way(self, intent: str) -> bool:
        """Wait for what another program has in the pool: ours above it would wait for ever if that one were dropped.
        Raises NonceHeld where it takes too long; after a wait everything is read anew."""
        began, told, waited = time.monotonic(), False, False
        try:
            while (nonce := self._chain.nonce(self._key.address)) < self._chain.next_nonce(self._key.address):
                waited, passed = True, time.monotonic() - began
                if passed > self._timeout_s:
                    raise NonceHeld(intent, nonce)
                if passed > _TOLD_AFTER_S and not told:
                    told = True
                    self._note(f"another program's transaction {nonce} of this wallet has no block yet: waiting for it")
                time.sleep(_LOOK_S)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"{intent}: not sent") from error
        return waited

    def _once(self, intent: str, make: Callable[[], Call]) -> TxReceipt:
        before, version = self._record.read(), None
        try:
            sent = self._signed(intent, make(), before)
            self._record.write(sent)
            version = sent.newest
            self._hand_over(sent)
            found, receipt = self._await(sent)
        except KeyboardInterrupt as error:
            if version is not None:
                raise SendInterrupted(intent, version.tx_hash) from error
            self._record.restore(before)
            raise KeyboardInterrupt(f"{intent}: not sent") from error
        if found.intent != intent:
            self._note(f"{_begun(found)}; it is in block {receipt.block_number} ({receipt.tx_hash}) after all")
            raise Overtaken(intent, sent.newest.tx_hash)
        return receipt

    def _hand_over(self, sent: SentTx) -> None:
        """Raises what the chain refuses. Where nobody answers, or the node is in trouble of its own, it may have
        arrived all the same, and so it may have where a refusal says otherwise: what the chain shows counts."""
        try:
            self._fate.broadcast(sent.newest)
        except (RpcUnavailable, BadAnswer):
            return
        except (RpcRefused, CallReverted) as error:
            if (isinstance(error, RpcRefused) and error.is_own_fault) or self._may_have_arrived(sent):
                return
            self._record.restore(sent.instead_of)
            raise

    def _may_have_arrived(self, sent: SentTx) -> bool:
        try:
            return self._fate.is_known(msgspec.structs.replace(sent, instead_of=None))
        except ChainError:
            return True

    def _signed(self, intent: str, call: Call, before: SentTx | None) -> SentTx:
        """At the first nonce that is not used. ``before``: one that no endpoint showed, whose place it takes."""
        gas = self._chain.estimate_gas(self._key.address, call.to, call.data) * 5 // 4
        nonce, fees = self._chain.nonce(self._key.address), self._chain.fees()
        if before is not None and before.nonce != nonce:
            raise NonceTooLow("eth_getTransactionCount", 0, f"the nonce is {nonce} meanwhile")
        if fees.base_fee > MAX_FEE:
            raise TooDear(intent, fees.base_fee, MAX_FEE)
        offer = market_offer(fees)
        if before is not None:
            offer = dearer(_offer(before.newest), offer) or offer
        draft = SentTx(intent, nonce, call.to, "0x" + call.data.hex(), gas, time.time(), [], before)
        return self._with_version(draft, offer)

    def _with_version(self, sent: SentTx, offer: FeeOffer) -> SentTx:
        data = bytes.fromhex(sent.data[2:])
        raw, tx_hash = sign_transaction(self._key, self._chain.chain_id(), sent.nonce, sent.to, data, sent.gas, offer)
        version = SentVersion("0x" + raw.hex(), tx_hash, offer.max_fee, offer.priority_fee)
        return msgspec.structs.replace(sent, versions=[*sent.versions, version])

    def _raised(self, sent: SentTx) -> SentTx:
        """The same with a dearer version, if the market asks more than the newest one offers and the wallet can pay."""
        fees, offered = self._chain.fees(), sent.newest
        offer = dearer(_offer(offered), market_offer(fees))
        if offer is None or min(offered.priority_fee, offered.max_fee - fees.base_fee) >= fees.priority_fee:
            return sent
        raised = self._with_version(sent, offer)
        self._record.write(raised)
        try:
            self._fate.broadcast(raised.newest)
        except (Underpriced, NonceTooLow):
            pass
        except RpcRefused as error:
            if not error.is_own_fault and not self._chain.knows(raised.newest.tx_hash):
                self._record.write(sent)
                return sent
        return raised

    def _await(self, sent: SentTx) -> tuple[SentTx, TxReceipt]:
        """Which of its family was mined; nothing is under way then. Raises NotMined, which keeps it; else what it came
        to."""
        try:
            found, receipt = self._fate.follow(sent, self._timeout_s)
        except Overtaken:
            self._record.forget()
            raise
        self._record.forget()
        if not receipt.ok and found.intent != sent.intent:
            raise Overtaken(sent.intent, sent.newest.tx_hash)
        if not receipt.ok:
            # Raises with the contract's reason, where that still holds.
            self._chain.estimate_gas(self._key.address, found.to, bytes.fromhex(found.data[2:]))
            raise CallReverted("Unknown", {"transaction": receipt.tx_hash})
        return found, receipt

    # -- its turn --

    def _take(self) -> int:
        lock = self._folder / "lock"
        try:
            private_folder(self._folder)
            for folder in (self._folder.parent, self._folder):
                found = folder.stat()
                if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                    raise WalletFolder(folder, "it must be yours, and no one else may write to it (chmod go-w)")
            return take(lock)
        except BlockingIOError:
            self._note("another command is sending for this wallet: waiting for it")
            return take(lock, wait=True)
        except OSError as error:
            if error.errno not in _UNUSABLE:
                raise
            raise WalletFolder(self._folder, os.strerror(error.errno)) from error


def _begun(sent: SentTx) -> str:
    return f"{sent.intent}: begun {time.strftime('%Y-%m-%d %H:%M', time.localtime(sent.at))} and interrupted"


def _offer(version: SentVersion) -> FeeOffer:
    return FeeOffer(version.max_fee, version.priority_fee)
