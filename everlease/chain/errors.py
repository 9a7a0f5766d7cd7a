"""What can go wrong on the way to the chain; ``retryable`` says whether the same call may work later."""

from pathlib import Path
from typing import Any

OWN_FAULT = frozenset({-32603, -32002})
"""Codes of JSON-RPC: internal error, resource unavailable or timed out."""


class ChainError(Exception):
    """Root of this package's errors."""

    retryable = False


class RpcUnavailable(ChainError):
    """No endpoint answered: refused, timed out, throttled or broken. ``last`` is the last endpoint's reason."""

    retryable = True

    def __init__(self, method: str, last: str) -> None:
        super().__init__(f"no RPC endpoint answered {method}: {last}")
        self.method = method
        self.last = last


class RpcRefused(ChainError):
    """The node understood and said no."""

    def __init__(self, method: str, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{method} was refused ({code}): {message}")
        self.method = method
        self.code = code
        self.message = message
        self.data = data

    @property
    def is_own_fault(self) -> bool:
        """The node failed or timed out by itself: what it was handed may have gone on its way all the same."""
        return self.code in OWN_FAULT and type(self) is RpcRefused


class TooManyResults(RpcRefused):
    """A log query spans more than the endpoint gives; ask for fewer blocks."""


class NonceTooLow(RpcRefused):
    """A transaction with this nonce is mined already."""


class AlreadyKnown(RpcRefused):
    """The node has this very transaction."""


class Underpriced(RpcRefused):
    """The fee is below what the pool takes, or too little above the transaction that it would replace."""


class InsufficientFunds(RpcRefused):
    """The sender can't pay for the gas."""


class CallReverted(ChainError):
    """A contract refused: ``name`` and ``values`` of its custom error, or of Error(string) / Panic(uint256)."""

    def __init__(self, name: str, values: dict[str, Any], data: str = "0x") -> None:
        shown = ", ".join(f"{key}={value}" for key, value in values.items())
        super().__init__(f"the contract reverted: {name}({shown})")
        self.name = name
        self.values = values
        self.data = data


class InvalidSignature(ChainError):
    """A signature that no key could have made (length, v, or s in the upper half)."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the signature is malformed: {reason}")
        self.reason = reason


class KeyRefused(ChainError):
    """A key can't be used: file missing, wrong password, or a raw key outside of a development chain."""


class WrongPassword(KeyRefused):
    """The password doesn't open this key file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the password for {path} is wrong")
        self.path = path


class WrongChain(ChainError):
    """The endpoint serves another chain than the deployment's."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(f"the RPC endpoint serves chain {found}, the deployment is on chain {expected}")
        self.found = found
        self.expected = expected


class BadAnswer(ChainError):
    """An endpoint's answer breaks the protocol (missing fields, hashes that don't match)."""

    retryable = True


class NotMined(ChainError):
    """A transaction was sent and not seen in a block in time; it may still be. ``what``: what it does, in words.
    ``missing``: a lower nonce that the chain has no transaction for."""

    retryable = True

    def __init__(self, what: str, tx_hash: str, missing: int | None = None) -> None:
        why = "" if missing is None else f"; it waits for a transaction {missing} of this wallet, which the chain lacks"
        super().__init__(f"{what} was sent ({tx_hash}) and not seen in a block yet; it may still be{why}")
        self.what, self.tx_hash = what, tx_hash


class Overtaken(ChainError):
    """Another transaction of this key was mined with the nonce of ours, which therefore never will be."""

    retryable = True

    def __init__(self, what: str, tx_hash: str) -> None:
        super().__init__(
            f"{what} ({tx_hash}) won't be mined: another transaction of the same wallet took its place. Try again, and "
            "let no other program send for this wallet meanwhile"
        )
        self.what, self.tx_hash = what, tx_hash


class NonceHeld(ChainError):
    """Another program's transaction of the same key waits for its block; ours was not sent. ``nonce`` is that one's."""

    retryable = True

    def __init__(self, what: str, nonce: int) -> None:
        super().__init__(
            f"{what}: not sent; another program's transaction {nonce} of this wallet has no block yet. Try again when "
            "it has, or replace it by one that pays more"
        )
        self.what, self.nonce = what, nonce


class TooDear(ChainError):
    """The chain asks more for gas than we ever pay; nothing was sent. Fees in wei per gas."""

    retryable = True

    def __init__(self, what: str, asked: int, most: int) -> None:
        super().__init__(
            f"{what}: not sent; the chain asks {asked / 10**9:.0f} gwei for gas, more than the {most // 10**9} that "
            "are paid at most. Try again later, or look whether the RPC endpoint tells the truth"
        )
        self.what = what


class WalletFolder(ChainError):
    """The folder in which a wallet notes what it has under way can't be used."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"{folder}, where this wallet notes what it sends, can't be used: {reason}. Mend that, or name another "
            "state folder with XDG_STATE_HOME"
        )
        self.folder = folder
