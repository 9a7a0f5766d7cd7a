"""A contract in EVM code that logs what its call data says: a chain gets 100,000 lease events in seconds.

Call data is a row of records: number of topics, length of the data, four topics (32 bytes each), the data.
"""

from everlease.chain.memory import Emitted


def _push(number: int) -> bytes:
    return b"\x61" + number.to_bytes(2, "big")


def _code() -> bytes:
    """loop: while offset < calldatasize: copy the data to memory, LOG2, LOG3 or LOG4 by the count, go on behind it."""
    calldataload, calldatacopy, calldatasize = b"\x35", b"\x37", b"\x36"
    add, equal, is_zero, greater, jump, jump_if, here, zero = (
        b"\x01", b"\x14", b"\x15", b"\x11", b"\x56", b"\x57", b"\x5b", b"\x5f",
    )  # fmt: skip

    def dup(depth: int) -> bytes:
        return bytes([0x7F + depth])

    code = zero + here  # stack: offset
    loop = 1
    head = dup(1) + calldatasize + greater + is_zero
    ends_at = len(code) + len(head) + 1
    code += head + _push(0) + jump_if
    code += dup(1) + _push(32) + add + calldataload  # offset, length
    code += dup(1) + dup(3) + _push(192) + add + zero + calldatacopy
    for count in (2, 3, 4):
        body = b""
        for pushed, topic in enumerate(reversed(range(count))):
            body += dup(2 + pushed) + _push(64 + 32 * topic) + add + calldataload
        body += dup(count + 1) + zero + bytes([0xA0 + count])
        test = dup(2) + calldataload + _push(count) + equal + is_zero
        after = len(code) + len(test) + 4 + len(body)
        code += test + _push(after) + jump_if + body + here
    code += add + _push(192) + add + _push(loop) + jump
    end = len(code)
    return code[:ends_at] + end.to_bytes(2, "big") + code[ends_at + 2 :] + here + b"\x00"


CODE = "0x" + _code().hex()


def record(emitted: Emitted) -> bytes:
    """One log as a record."""
    _, topics, data = emitted
    words = [bytes.fromhex(topic[2:]) for topic in topics] + [bytes(32)] * (4 - len(topics))
    return len(topics).to_bytes(32, "big") + len(data).to_bytes(32, "big") + b"".join(words) + data
