"""Errors of the store. Each carries its values and says whether trying again can help."""

from __future__ import annotations


class StoreError(Exception):
    """Root of all store errors."""

    retryable = False


class BlockNotFound(StoreError):
    """No such block in this store."""

    def __init__(self, cid: str) -> None:
        super().__init__(f"block {cid} is not in the store")
        self.cid = cid


class BlockCorrupt(StoreError):
    """A block whose bytes are not what its name, key or manifest says."""

    def __init__(self, cid: str, reason: str) -> None:
        super().__init__(f"block {cid} is corrupt: {reason}")
        self.cid = cid
        self.reason = reason


class BlockTooLarge(StoreError):
    """A block above the limit of this store."""

    def __init__(self, cid: str, size: int, limit: int) -> None:
        super().__init__(f"block {cid} has {size} bytes, the limit is {limit}")
        self.cid = cid
        self.size = size
        self.limit = limit


class InvalidCid(StoreError):
    """Text or bytes that are not a CIDv1 of a raw sha2-256 block."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text[:80]!r} is not a CIDv1 (raw, sha2-256, base32)")
        self.text = text


class InvalidCar(StoreError):
    """A CAR stream that is malformed or cut short."""


class StoreFull(StoreError):
    """No space left; nothing was made visible by the call and what was there stays readable."""


class StoreLocked(StoreError):
    """Another process has this store open for writing."""

    def __init__(self, root: str) -> None:
        super().__init__(f"{root} is open in another process; stop it or open the store read-only")
        self.root = root


class StoreUnavailable(StoreError):
    """The store could not be reached or answered with a server error."""

    retryable = True


class AccessDenied(StoreError):
    """The token is missing, invalid, expired or lacks the scope."""


class SourceChanged(StoreError):
    """A file shrank or vanished while it was being read."""

    retryable = True

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} changed while the checkpoint read it")
        self.path = path


class UnsupportedSource(StoreError):
    """The source can't be put into a checkpoint as asked."""


class KeyMissing(StoreError):
    """A block is sealed under a key generation that the caller does not hold."""

    def __init__(self, generation: int) -> None:
        super().__init__(f"the key of generation {generation} is missing")
        self.generation = generation


class ManifestInvalid(StoreError):
    """A manifest block that can't be trusted: format, signature, chain or content."""


class TargetExists(StoreError):
    """A restore's target directory already holds something."""


class LiveSetIncomplete(StoreError):
    """The mark set of a garbage collection was cut short; nothing was touched."""


class Cancelled(StoreError):
    """The caller asked to stop; blocks stored so far stay pinned until their session ends."""
