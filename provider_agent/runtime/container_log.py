"""A container's output through Docker's API, resumed by place and never by time: the clock of a host steps.

Docker stamps each entry of a log with the wall clock, and `since` hides whatever has an earlier stamp: after a step
back that is all that comes. So the entry taken last is looked for at the log's end, and in all of it only where that
does not tell. Docker's rotation takes the oldest entries away; if that one is among them, all that is left is new.

Docker's `follow` is of no use: when it rotates its files it repeats entries, up to a whole file of them, or ends early.
An entry that a full disk tore ends every reading that comes to it, with words of Docker's own: what follows it is read
from the log's end.
"""

import hashlib
import os
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import docker

LOG_OPTIONS = {"max-size": "16m", "max-file": "4"}
TAIL, WIDER, WIDEST = 16, 4, 1 << 17
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:\d\d) ")


@dataclass(frozen=True)
class LogLine:
    """One piece of output, as it was written: a line with its newline, or a part of one.

    Docker cuts lines of more than 16 KiB, and a container may end in the middle of one. `cursor` resumes after the
    piece (see Place).
    """

    cursor: str
    text: bytes


class Place(NamedTuple):
    """How many entries were taken of a log, and what the first of the log and the last that was taken look like.

    Entries look alike only as parts of one line, which share a stamp: `run` counts such ones up to the last.
    """

    taken: int = 0
    first: str = ""
    last: str = ""
    run: int = 0

    @classmethod
    def of(cls, cursor: str | None) -> "Place":
        """The place after the piece with this cursor; the beginning without one. Raises ValueError: it is none."""
        if cursor is None:
            return cls()
        taken, first, last, run = cursor.split("+")
        return cls(int(taken), first, last, int(run))

    def after(self, entry: bytes) -> "Place":
        """The place after one more entry."""
        look = _look(entry)
        return Place(self.taken + 1, self.first or look, look, self.run + 1 if look == self.last else 1)


class _Torn(Exception):
    """Docker can't read on: this is where an entry is torn."""


class ContainerLog:
    """One reader of one container's log, which goes on where it stopped: `read` again gives what came since.

    Docker's errors, and those of the HTTP client below it, come through.
    """

    def __init__(self, api: docker.APIClient, container: str, after: str | None) -> None:
        self._api, self._container = api, container
        self._place = Place.of(after)
        self._tail = TAIL
        self._file: str | None = None
        self._seen: tuple[int, int, int] | None = None

    def moved(self) -> bool:
        """Whether Docker's file is another, or has another size or time, than at the look before; a look costs a stat.

        True where the file can't be seen.
        """
        try:
            if self._file is None:
                self._file = str(self._api.inspect_container(self._container)["LogPath"])
            found = os.stat(self._file)
        except (OSError, KeyError):
            return True
        before, self._seen = self._seen, (found.st_ino, found.st_size, found.st_mtime_ns)
        return self._seen != before

    def read(self) -> Iterator[LogLine]:
        """What is new, to the log's end as it is now."""
        while True:
            known = self._place
            try:
                yield from self._read()
            except _Torn:
                if self._place != known:
                    continue
                yield from self._read_after_tear()
            return

    def _read(self) -> Iterator[LogLine]:
        known, tail, torn = self._place, max(self._tail, self._place.run + TAIL), False
        while known.taken and tail <= WIDEST:
            listed, found, ends_torn = yield from self._read_end(known, tail)
            torn |= ends_torn
            if found and torn:
                break
            if found:
                self._tail = min(max(TAIL, 2 * (self._place.taken - known.taken)), WIDEST)
                return
            if listed < tail and not torn:
                break
            tail *= WIDER
        if torn:
            yield from self._read_after_tear()
        else:
            yield from self._read_whole()

    def _read_end(
        self, known: Place, tail: int, *, after_tear: bool = False
    ) -> Generator[LogLine, None, tuple[int, bool, bool]]:
        """What is new among the last entries: how many there are, whether the one taken last is one of them, and
        whether they end where an entry is torn.
        """
        number, run, found = 0, 0, False
        with closing(self._entries(tail)) as entries:
            try:
                for number, entry in enumerate(entries, start=1):
                    if found:
                        yield self._take(entry)
                        continue
                    run = run + 1 if _look(entry) == known.last else 0
                    # Of a run that begins before these entries nobody can tell which part this is.
                    found = run == known.run and (number > run or after_tear)
            except _Torn:
                return number, found, True
        return number, found, False

    def _read_after_tear(self) -> Iterator[LogLine]:
        """What is new among the entries after the last that is torn, once all before it was taken."""
        known, clean, found = self._place, self._clean_end(), False
        if clean and known.taken:
            _, found, _ = yield from self._read_end(known, clean, after_tear=True)
        if clean and not found:
            with closing(self._entries(clean)) as entries:
                for entry in entries:
                    yield self._take(entry)

    def _clean_end(self) -> int:
        """How many entries, at most, can be read from the log's end."""
        clean, torn = 0, 1
        while torn <= WIDEST and self._reads(torn):
            clean, torn = torn, 2 * torn
        while torn - clean > 1:
            middle = (clean + torn) // 2
            clean, torn = (middle, torn) if self._reads(middle) else (clean, middle)
        return clean

    def _reads(self, tail: int) -> bool:
        with closing(self._entries(tail)) as entries:
            try:
                for _ in entries:
                    pass
            except _Torn:
                return False
        return True

    def _read_whole(self) -> Iterator[LogLine]:
        while True:
            known = self._place
            with closing(self._entries("all")) as entries:
                for number, entry in enumerate(entries, start=1):
                    if number > known.taken:
                        yield self._take(entry)
                    elif (number == 1 and _look(entry) != known.first) or (
                        number == known.taken and _look(entry) != known.last
                    ):
                        break
                else:
                    return
            self._place = self._found_again(known)

    def _found_again(self, known: Place) -> Place:
        """The place in a log that lost its beginning; that beginning where the entry taken last is gone, too."""
        first, found = "", 0
        with closing(self._entries("all")) as entries:
            for number, entry in enumerate(entries, start=1):
                look = _look(entry)
                first = first or look
                # Of those that look alike the nearest to where it was.
                if look == known.last and (not found or abs(number - known.taken) < abs(found - known.taken)):
                    found = number
        return known._replace(taken=found, first=first) if found else Place()

    def _take(self, entry: bytes) -> LogLine:
        self._place = self._place.after(entry)
        return LogLine("+".join(map(str, self._place)), entry.partition(b" ")[2])

    def _entries(self, tail: int | Literal["all"]) -> Generator[bytes, None, None]:
        """The last entries of Docker's log, a frame of its stream each: the stamp, a space, the piece. Raises _Torn."""
        stream: Any = self._api.logs(self._container, stream=True, follow=False, timestamps=True, tail=tail)
        try:
            for entry in stream:
                # Among the job's words Docker says, without a stamp, why it can't go on.
                if not STAMP.match(entry):
                    raise _Torn(entry)
                yield entry
        finally:
            close_stream(stream)


def close_stream(stream: Any) -> None:
    """Docker's stream shuts its socket down but leaves the response's hold on it."""
    stream.close()
    stream._response.close()


def _look(entry: bytes) -> str:
    return hashlib.blake2b(entry, digest_size=8).hexdigest()
