"""What a wallet keeps of the transaction that is under way, so that no interruption sends it twice."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from everlease.durable import write_private


class SentVersion(msgspec.Struct, frozen=True):
    """One signed version: raw bytes and hash as 0x-hex, fees in wei per gas."""

    raw: str
    tx_hash: str
    max_fee: int
    priority_fee: int


class SentTx(msgspec.Struct, frozen=True):
    """``intent``: what it does, in words. ``versions``: the same call at the same nonce for rising fees, newest last.
    ``at``: unix seconds of the first. ``instead_of``: a transaction with this nonce that no endpoint showed; it may
    still be mined in place of this one."""

    intent: str
    nonce: int
    to: str
    data: str
    gas: int
    at: float
    versions: list[SentVersion]
    instead_of: "SentTx | None" = None

    @property
    def newest(self) -> SentVersion:
        """The version that was signed last."""
        return self.versions[-1]


def is_signed(sent: SentTx, address: str, chain_id: int) -> bool:
    """Whether every version is what the record says, for this chain and signed by this address: the record is signed
    anew for other fees, so nothing in it is taken on trust."""
    try:
        whole = bool(sent.versions) and all(_is_version(sent, version, address, chain_id) for version in sent.versions)
    except Exception:  # the decoders raise whatever malformed bytes lead to
        return False
    before = sent.instead_of
    return whole and (before is None or (before.nonce == sent.nonce and is_signed(before, address, chain_id)))


def _is_version(sent: SentTx, version: SentVersion, address: str, chain_id: int) -> bool:
    raw = bytes.fromhex(version.raw.removeprefix("0x"))
    fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    found = (
        int(fields["chainId"]), int(fields["nonce"]), "0x" + bytes(fields["to"]).hex(),
        "0x" + bytes(fields["data"]).hex(), int(fields["gas"]), int(fields["value"]),
        int(fields["maxFeePerGas"]), int(fields["maxPriorityFeePerGas"]),
    )  # fmt: skip
    told = (
        chain_id, sent.nonce, sent.to.lower(), sent.data, sent.gas, 0, version.max_fee, version.priority_fee,
    )  # fmt: skip
    return (
        found == told
        and "0x" + bytes(keccak(raw)).hex() == version.tx_hash
        and str(Account.recover_transaction(raw)).lower() == address.lower()
    )


class SentRecord:
    """One file (0600) with at most one transaction; only who has the wallet's turn touches it. ``is_ours`` says whether
    what was read may be sent."""

    def __init__(self, path: Path, note: Callable[[str], None], is_ours: Callable[[SentTx], bool]) -> None:
        self._path, self._note, self._is_ours = path, note, is_ours

    def read(self) -> SentTx | None:
        """The transaction under way. A file that can't be read or isn't this wallet's work is told of and removed."""
        try:
            sent = msgspec.json.decode(self._path.read_bytes(), type=SentTx)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            self._refuse("is damaged")
            return None
        if not self._is_ours(sent):
            self._refuse("holds a transaction that this wallet did not write there")
            return None
        return sent

    def _refuse(self, why: str) -> None:
        self._note(f"{self._path} {why}: look whether this wallet's last transaction did what you wanted")
        self.forget()

    def write(self, sent: SentTx) -> None:
        """Durable on return. Raises OSError."""
        write_private(self._path, msgspec.json.encode(sent))

    def restore(self, sent: SentTx | None) -> None:
        """What was there before."""
        if sent is None:
            self.forget()
        else:
            self.write(sent)

    def forget(self) -> None:
        """Its fate is known."""
        self._path.unlink(missing_ok=True)
