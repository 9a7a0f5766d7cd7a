"""Archives that two readers could take for different things are refused whole; what our own tar writes passes."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from provider_agent.runtime import archives
from provider_agent.runtime.errors import CheckpointRefused

TAR = ["tar", "--create", "--sparse", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*"]


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, mtime: bytes | None = None, **more: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    for key, value in more.items():
        setattr(entry, key, value)
    raw = entry.tobuf(tarfile.USTAR_FORMAT)
    if mtime is not None:
        raw = raw[:136] + mtime + raw[148:]
    return signed(raw)


def signed(raw: bytes) -> bytes:
    blank = raw[:148] + b" " * 8 + raw[156:]
    return blank[:148] + f"{sum(blank):06o}\0 ".encode() + blank[156:]


END = bytes(1024)
DEVICE = header("d", tarfile.BLKTYPE, devmajor=8, devminor=1)
PAX = header("p", tarfile.XHDTYPE, 512)
SPARSE = b"".join(
    f"{len(word) + 4} {word}\n".encode() if len(word) < 96 else b""
    for word in ("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=s", "GNU.sparse.realsize=512")
)


def records(raw: bytes) -> bytes:
    return header("p", tarfile.XHDTYPE, len(raw)) + raw + bytes(-len(raw) % 512)


HOSTILE = {
    "base-256 mtime before a device": header("a") + header("b", mtime=b"\xff" * 12) + DEVICE + END,
    "base-64 mtime before a device": header("a") + header("b", mtime=b"+AAAAAAAAAAA") + DEVICE + END,
    "a device after the end": header("a") + END + DEVICE + END,
    "a sparse map that runs into the next member": records(SPARSE)
    + header("s", size=512)
    + b"1\n0\n512\n".ljust(512, b"\0")
    + header("a", size=512)
    + DEVICE
    + END,
    "two sizes": records(b"10 size=0\n" + b"12 size=512\n") + header("a", size=512) + DEVICE + END,
    "a size that hides a device": records(b"10 size=0\n") + header("a", size=512) + DEVICE + END,
    "an old GNU header": header("a")[:257] + b"ustar  \0" + header("a")[265:] + END,
    "a wrong checksum": header("a")[:148] + b"0000000\0" + header("a")[156:] + END,
    "a global header": header("g", tarfile.XGLTYPE) + END,
    "a long name": header("L", tarfile.GNUTYPE_LONGNAME) + END,
    "no end": header("a"),
    "a half block": header("a") + END + b"\0" * 512 + b"x",
    "a name in the records": records(b"13 path=../x\n") + header("a") + END,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_two_readers_could_read_differently_is_refused(tmp_path: Path, case: str) -> None:
    (tmp_path / "t.tar").write_bytes(HOSTILE[case])
    with pytest.raises(CheckpointRefused):
        archives.check(tmp_path / "t.tar")


def test_what_our_tar_writes_passes_and_comes_back(tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    long = "/".join(["very" * 20] * 3)
    (source / long).mkdir(parents=True)
    back.mkdir()
    (source / long / "ä file").write_text("x" * 1000)
    (source / "empty").touch()
    os.symlink("/etc/passwd", source / "link")
    os.link(source / "empty", source / "hard")
    os.mkfifo(source / "fifo")
    os.mknod(source / "gone", 0o020000, 0)
    os.setxattr(source / "empty", "user.note", b"a\0b")
    os.utime(source / "empty", (-5, -5))
    with (source / "holes").open("wb") as file:
        for offset in (0, 1 << 20, (3 << 20) - 7):
            file.seek(offset)
            file.write(b"data" * 1025)
    subprocess.run([*TAR, "--file", tmp_path / "t.tar", "-C", source, "."], check=True)
    archives.put_back(tmp_path / "t.tar", back)
    done = subprocess.run(["diff", "-r", "--no-dereference", source, back], capture_output=True, text=True, check=False)
    assert not [line for line in done.stdout.splitlines() if "is a fifo" not in line and "special" not in line]
    assert os.getxattr(back / "empty", "user.note") == b"a\0b"
    assert (back / "holes").read_bytes() == (source / "holes").read_bytes()
