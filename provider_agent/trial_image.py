"""A container image that needs nothing of this host: one static program of 300 bytes, assembled here (x86-64).

It writes "a", "b", … "z", "a", … one letter a line, twenty a second, and each letter into an open file as well. Its
place in the alphabet is in its memory alone: whoever restores it sees by the next letter whether it went on.
"""

import io
import itertools
import struct
import tarfile

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PROGRAM, FILE = "/tick", "/data/ticks"
BASE = 0x400000
HEADERS = 64 + 56
TICK_NS = 50_000_000
OPEN_FLAGS = 0o2101  # O_WRONLY | O_CREAT | O_APPEND

# (bytes, name of the data that the 4-byte displacement after them leads to, bytes after that displacement)
_CODE: tuple[tuple[str, str | None, str], ...] = (
    ("b802000000", None, ""),  # mov eax, 2 (open)
    ("488d3d", "path", ""),  # lea rdi, [path]
    (f"be{OPEN_FLAGS.to_bytes(4, 'little').hex()}", None, ""),  # mov esi, flags
    (f"ba{0o600.to_bytes(4, 'little').hex()}", None, ""),  # mov edx, 0600
    ("0f05", None, ""),  # syscall
    ("4189c4", None, ""),  # mov r12d, eax
    ("b801000000bf01000000", None, ""),  # loop: mov eax, 1 (write); mov edi, 1
    ("488d35", "letter", ""),  # lea rsi, [letter]
    ("ba020000000f05", None, ""),  # mov edx, 2; syscall
    ("b8010000004489e7", None, ""),  # mov eax, 1; mov edi, r12d
    ("488d35", "letter", ""),  # lea rsi, [letter]
    ("ba010000000f05", None, ""),  # mov edx, 1; syscall
    ("fe05", "letter", ""),  # inc byte [letter]
    ("803d", "letter", "7b"),  # cmp byte [letter], 'z' + 1
    ("7507", None, ""),  # jne over the next instruction
    ("c605", "letter", "61"),  # mov byte [letter], 'a'
    ("b823000000", None, ""),  # mov eax, 35 (nanosleep)
    ("488d3d", "pause", ""),  # lea rdi, [pause]
    ("31f60f05", None, ""),  # xor esi, esi; syscall
)
_LOOP = 6


def program() -> bytes:
    """The ELF file: one segment, read, written and run."""
    lengths = [len(bytes.fromhex(head)) + (4 if name else 0) + len(bytes.fromhex(tail)) for head, name, tail in _CODE]
    loop, size = sum(lengths[:_LOOP]), sum(lengths) + 2
    data = {"path": FILE.encode() + b"\0", "letter": b"a\n", "pause": struct.pack("<qq", 0, TICK_NS)}
    places, place = {}, size
    for name, content in data.items():
        places[name] = place
        place += len(content)
    code = b""
    for (head, target, tail), length in zip(_CODE, lengths, strict=True):
        end = len(code) + length
        code += bytes.fromhex(head) + (struct.pack("<i", places[target] - end) if target else b"") + bytes.fromhex(tail)
    code += b"\xeb" + struct.pack("<b", loop - size) + b"".join(data.values())
    total = HEADERS + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, total, total, 0x1000) + code


def archive() -> bytes:
    """The image's file system as a tar for `docker import`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        folder = tarfile.TarInfo("data")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
        binary = program()
        entry = tarfile.TarInfo(PROGRAM.lstrip("/"))
        entry.mode, entry.size = 0o755, len(binary)
        tar.addfile(entry, io.BytesIO(binary))
    return stream.getvalue()


def follows(before: str, after: str) -> bool:
    """Whether the letters ``after`` go on exactly where ``before`` ended."""
    said = [*before, *after]
    pairs = itertools.pairwise(said)
    return all(LETTERS[(LETTERS.index(one) + 1) % len(LETTERS)] == two for one, two in pairs)
