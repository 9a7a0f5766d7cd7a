"""What a wallet keeps of the transaction that is under way, so that no interruption sends it twice."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from everlease.durable import write_private


class SentVersion(msgspec.Struct, frozen=True):
    """One signed version: raw bytes and hash as 0x-hex, fees in wei per gas."""

    raw: str
    tx_hash: str
    max_fee: int
    priority_fee: int


class SentTx(msgspec.Struct, frozen=True):
    """``intent``: what it does, in words. ``versions``: the same call at the same nonce for rising fees, newest last.
    ``at``: unix seconds of the first."""

    intent: str
    nonce: int
    to: str
    data: str
    gas: int
    at: float
    versions: list[SentVersion]

    @property
    def newest(self) -> SentVersion:
        """The version that was signed last."""
        return self.versions[-1]


class SentRecord:
    """One file (0600) with at most one transaction; only who has the wallet's turn touches it."""

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._path, self._note = path, note

    def read(self) -> SentTx | None:
        """The transaction under way. A file that can't be read is told of and counts as none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=SentTx)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            self._note(f"{self._path} is damaged: look whether this wallet's last transaction did what you wanted")
            return None

    def write(self, sent: SentTx) -> None:
        """Durable on return. Raises OSError."""
        write_private(self._path, msgspec.json.encode(sent))

    def forget(self) -> None:
        """Its fate is known."""
        self._path.unlink(missing_ok=True)
