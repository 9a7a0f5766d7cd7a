"""Turn the logs of runc and CRIU into one sentence that a tenant or a provider understands."""

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 8192
NO = "which can't be checkpointed"
FULL = "the host's disk is full"
_FULL_BELOW = 256 * 1024
_CHUNK, _LONGEST = 1 << 20, 256
_REPAIR = b"Turning repair on"
_WORDS = re.compile(
    rb"^\([\d.]+\) (?:Error \([^)\n]*\): |tcp: \t)?(Turning repair on|Dumping task \(pid: (\d+)|Obtaining task stat"
    rb"|Dumping FAILED|Dumping finished|Dumping pstree \(pid: )",
    re.MULTILINE,
)
# (pattern in CRIU's or runc's log, sentence, whether the same program will always fail)
DUMP_CAUSES: tuple[tuple[str, str, bool], ...] = (
    (r"No space left on device", FULL, False),
    (r"io_uring", f"the program uses io_uring, {NO}", True),
    (r"(?i)inotify|fsnotify|fanotify", f"the program watches files with inotify, {NO}", True),
    (r"perf_event|\[?bpf|userfaultfd", f"the program holds a perf, bpf or userfaultfd descriptor, {NO}", True),
    (r"ghost file|ghost-limit", "the program keeps a deleted file of more than 1 GiB open", True),
    (r"(?i)packet socket|sk-packet|netlink", f"the program holds a packet or netlink socket, {NO}", True),
    (r"Unsupported (?:socket|proto|family)|Unknown (?:proto|socket)", f"the program holds a kind of socket {NO}", True),
    (r"External (?:unix )?socket", "the program is connected to a socket outside its container", True),
    (r"Can't dump (?:chr|char|blk)|(?:chr|char) device|/dev/nvidia", f"the program has a device open {NO}", True),
    (r"Can't dump file \d+ of that type", f"the program has a file of a kind open {NO}", True),
    (r"(?:unable|failed|time).{0,40}freez", "the program's processes could not be stopped in time", False),
    (r"(?i)seized by|already being traced|ptrace", "a process of the program is being traced by a debugger", False),
)
RESTORE_CAUSES: tuple[tuple[str, str], ...] = (
    (r"No space left on device", FULL),
    (r"(?i)cpu.{0,40}(?:capabilit|feature|xsave)|fpu", "the CPU lacks features that the program was using"),
    (r"Can't bind inet socket|Cannot assign requested address", "the host gave the container another address"),
    (r"has bad size|bad mode|Can't open file|No such file", "a file that the program had open is missing or differs"),
    (r"Can't fork|Pid \d+ do(?:es)? not match", "a process id is already taken"),
    (r"memory|ENOMEM|Cannot allocate", "the host has too little memory for it"),
    (r"(?i)magic|pb_read|protobuf|unpack", "the checkpoint's images are damaged"),
)


@dataclass(frozen=True)
class Cause:
    """Why a dump failed; `permanent` when trying again can't help this program."""

    sentence: str
    permanent: bool
    log_tail: str


def tail(path: Path) -> str:
    """The last 8 KiB of a log, "" when there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def criu_held(criu_log: Path) -> int | None:
    """The process that a dump's CRIU was last at work in, as the host numbers it; None when it ended the dump by
    itself, well or not, had not got to one, or was done with all of them: before it writes their tree, CRIU lets go of
    the last of them.
    """
    at, held = None, None
    for word, pid in _said(criu_log):
        if pid:
            at, held = int(pid), None
        elif word == b"Obtaining task stat":
            held = at  # CRIU names a zombie, too, and does nothing to it.
        elif word != _REPAIR:
            return None
    return held


def criu_ended(criu_log: Path) -> bool:
    """Whether a dump's CRIU says that it ended, well or not."""
    return any(word in (b"Dumping FAILED", b"Dumping finished") for word, _ in _said(criu_log))


def criu_took_connections(criu_log: Path) -> bool:
    """Whether CRIU put a connection into repair mode, in which the program is told that it may not use it."""
    return any(word == _REPAIR for word, _ in _said(criu_log))


def _said(criu_log: Path) -> Iterator[tuple[bytes, bytes]]:
    """CRIU's words of interest, in order, with the pid of a task that it begins with; none where there is no log.

    The tenant chooses how long the log is (a line for each mapping of each process): it is never held as a whole.
    """
    with suppress(OSError), criu_log.open("rb") as stream:
        rest = b""
        while chunk := stream.read(_CHUNK):
            # A line goes into the next round whole; one without end is none of these.
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            yield from ((found[1], found[2] or b"") for found in _WORDS.finditer(lines + newline))
            rest = rest[:_LONGEST]
        yield from ((found[1], found[2] or b"") for found in _WORDS.finditer(rest))


def cut(path: Path) -> None:
    """Leave no more of a log than its last 8 KiB."""
    with suppress(OSError):
        if path.stat().st_size > TAIL_BYTES:
            last = tail(path)
            path.unlink()
            path.write_text(last, encoding="utf-8")


def criu_answered(said: str) -> bool:
    """Whether runc tells of a dump that CRIU itself ended as failed, so that it undid what it had done."""
    return "criu failed: type" in said


def errors(log: str) -> str:
    """CRIU's error lines alone, so that a harmless mention elsewhere is not taken for the cause."""
    return "\n".join(line for line in log.splitlines() if re.search(r"Error|rror:|Err\b|No space left", line))


def explain_dump(said: str, criu_log: Path, files_log: Path) -> Cause:
    """Look at what runc said, at CRIU's log and at the post-dump script's."""
    log, files = tail(criu_log), tail(files_log)
    text = "\n".join((errors(log), files, said))
    for pattern, sentence, permanent in DUMP_CAUSES:
        if re.search(pattern, text):
            return Cause(sentence, permanent, log or said)
    return Cause(_first_error(log, said), False, log or said)


def explain_restore(said: str, criu_log: Path) -> Cause:
    """The same for a restore, or for the wrapper's refusal of it."""
    log = tail(criu_log)
    if refused := re.search(r"everlease-runc: (.+?)(?:: unknown)?$", said, re.MULTILINE):
        return Cause(FULL if "No space left" in refused[1] else refused[1], True, log or said)
    for pattern, sentence in RESTORE_CAUSES:
        if re.search(pattern, errors(log)):
            return Cause(f"{sentence} ({_first_error(log, said)})", True, log)
    return Cause(_first_error(log, said), False, log or said)


def _first_error(log: str, said: str) -> str:
    listed = errors(log).splitlines() or [line for line in said.splitlines() if line.strip()]
    return listed[0].strip()[-300:] if listed else "CRIU ended without a message"


def disk_is_full(folder: Path) -> bool:
    """Whether next to nothing fits below ``folder`` any more: then not even a log could be written to say so."""
    return shutil.disk_usage(folder).free < _FULL_BELOW
