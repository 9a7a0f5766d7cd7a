"""A header's logsBloom: which addresses and topics its logs may hold. Source: Ethereum yellow paper, section 4.3.1.

False says "certainly not"; true says "perhaps", and on a full block that is often wrong.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from eth_utils.crypto import keccak

SIZE = 256
EMPTY = bytes(SIZE)


@lru_cache(maxsize=4096)
def _mask(item: bytes) -> int:
    digest = bytes(keccak(item))
    mask = 0
    for at in (0, 2, 4):
        mask |= 1 << (int.from_bytes(digest[at : at + 2], "big") & 2047)
    return mask


def bloom_of(items: Iterable[bytes]) -> bytes:
    """The bloom of a block whose logs hold these addresses (20 bytes) and topics (32 bytes)."""
    found = 0
    for item in items:
        found |= _mask(item)
    return found.to_bytes(SIZE, "big")


def may_hold(bloom: bytes, addresses: Sequence[bytes], topics: Sequence[bytes]) -> bool:
    """Whether a log of one of ``addresses`` with one of ``topics`` can be in the block."""
    if bloom == EMPTY:
        return False
    bits = int.from_bytes(bloom, "big")

    def any_of(items: Sequence[bytes]) -> bool:
        return any(bits & (mask := _mask(item)) == mask for item in items)

    return any_of(addresses) and any_of(topics)
