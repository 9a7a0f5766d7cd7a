"""Whether code on a chain is a committed contract's, and where a creation puts it.

Sources: creation code embeds the runtime code with a zero word behind PUSH32 for each immutable (Solidity, "Contract
Creation"); a created address is the hash of creator and nonce (Ethereum Yellow Paper, section 7).
"""

import rlp
from eth_utils.crypto import keccak

from everlease.chain.abi import artifact

_PUSH1, _PUSH2, _PUSH32 = 0x60, b"\x61", 0x7F
_ZERO_WORD = bytes(32)
_PREFIX = 4
"""Bytes at the beginning of runtime code that hold no immutable: they set up the free memory pointer."""


def code_hash(code: bytes) -> str:
    """keccak-256 of an account's code, 0x-hex."""
    return "0x" + bytes(keccak(code)).hex()


def created_address(creator: str, nonce: int) -> str:
    """Where CREATE puts a contract, lower case; a contract's own first creation has nonce 1."""
    packed: bytes = rlp.encode([bytes.fromhex(creator[2:]), nonce])
    return "0x" + bytes(keccak(packed))[12:].hex()


def staking_address(escrow: str) -> str:
    """Where ProviderStaking is: the first thing that LeaseEscrow's constructor creates."""
    return created_address(escrow, 1)


def is_committed(contract: str, runtime: bytes) -> bool:
    """Whether ``runtime`` is that of the committed ``contract``, whatever its immutables hold."""
    creation = bytes.fromhex(artifact(contract)["bytecode"].removeprefix("0x"))
    start = creation.find(runtime[:_PREFIX], 1) if len(runtime) > _PREFIX else -1
    while start >= 0:
        template = creation[start : start + len(runtime)]
        if _returned(creation, start, len(runtime)) and _equal_but_immutables(template, runtime):
            return True
        start = creation.find(runtime[:_PREFIX], start + 1)
    return False


def _returned(creation: bytes, start: int, size: int) -> bool:
    """Whether the constructor, which lies before ``start``, copies just this part: it pushes offset and size."""
    return all(_PUSH2 + number.to_bytes(2, "big") in creation[:start] for number in (start, size) if number < 1 << 16)


def _equal_but_immutables(template: bytes, runtime: bytes) -> bool:
    """Instruction by instruction: a word that is zero in the template and pushed whole is an immutable."""
    if len(template) != len(runtime):
        return False
    at = 0
    while at < len(template):
        code = template[at]
        end = at + 1 + (code - _PUSH1 + 1 if _PUSH1 <= code <= _PUSH32 else 0)
        immutable = code == _PUSH32 and template[at + 1 : end] == _ZERO_WORD
        if runtime[at] != code or (template[at:end] != runtime[at:end] and not immutable):
            return False
        at = end
    return True
