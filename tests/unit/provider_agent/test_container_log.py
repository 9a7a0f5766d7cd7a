"""A container's output comes once and whole, whatever the host's clock does and wherever its reader stopped."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import docker
import pytest
from docker.errors import DockerException
from hypothesis import given
from hypothesis import strategies as st

from provider_agent.runtime.container import ContainerEngine
from provider_agent.runtime.errors import ContainerFault

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY_S = 86_400
TORN = "torn"
"""An entry of which a full disk kept a part: Docker ends a reading there, with words that look like output."""


class Stream:
    """Docker's answer to a request for a log, as its client hands it on."""

    def __init__(self, entries: Iterator[bytes]) -> None:
        self._entries = entries
        self._response = SimpleNamespace(close=lambda: None)

    def __iter__(self) -> Iterator[bytes]:
        return self._entries

    def close(self) -> None:
        return


class Docker:
    """The log of one container; a stream breaks after ``breaks_after`` entries."""

    def __init__(self, entries: list[tuple[float, str]]) -> None:
        self.entries = entries
        self.breaks_after = 1 << 20
        self.before: Callable[[], object] = lambda: None
        self.served = 0

    def logs(
        self,
        _: str,
        *,
        stream: bool,
        follow: bool,
        timestamps: bool,
        tail: int | str = "all",
        since: float | None = None,
    ) -> Stream:
        assert (stream, follow, timestamps) == (True, False, True)
        self.before()
        listed = [entry for entry in self.entries if since is None or BEGAN.timestamp() + entry[0] >= since]
        return Stream(self._frames(listed if tail == "all" else listed[-int(tail) :]))

    def _frames(self, entries: list[tuple[float, str]]) -> Iterator[bytes]:
        for number, (at, text) in enumerate(entries):
            if number == self.breaks_after:
                raise DockerException("the daemon is gone")
            self.served += 1
            if text == TORN:
                yield b"Error grabbing logs: invalid character 'a' after object key:value pair\n"
                return
            stamp = (BEGAN + timedelta(seconds=at)).isoformat().replace("+00:00", "000Z")
            yield f"{stamp} {text}".encode()


def engine_of(log: Docker) -> ContainerEngine:
    return ContainerEngine(cast(docker.DockerClient, SimpleNamespace(api=log)), Path("/nowhere"))


def said(log: Docker, after: str | None = None) -> list[tuple[str, str]]:
    return [(line.text.decode(), line.cursor) for line in engine_of(log).logs("c", after=after)]


def texts(lines: list[tuple[str, str]]) -> list[str]:
    return [text for text, _ in lines]


def numbers(first: int, end: int) -> list[str]:
    return [f"{n}\n" for n in range(first, end)]


def stepped(count: int = 30) -> Docker:
    """A third of the lines, then the clock goes back an hour, and after another third ahead by two."""
    steps = [0, -3600, 3600]
    return Docker([(n + steps[n * 3 // count], f"{n}\n") for n in range(count)])


def test_after_a_clock_that_stepped_a_reader_goes_on_where_it_was() -> None:
    whole = said(stepped())
    assert texts(whole) == numbers(0, 30)
    for number, (_, cursor) in enumerate(whole, start=1):
        assert said(stepped(), cursor) == whole[number:]


def test_a_stream_that_broke_goes_on_after_its_last_line() -> None:
    log, lines = stepped(), list[tuple[str, str]]()
    log.breaks_after = 17
    stream = engine_of(log).logs("c")
    with pytest.raises(ContainerFault):
        lines.extend((line.text.decode(), line.cursor) for line in stream)
    assert len(lines) == 17
    log.breaks_after = 99
    assert texts(lines + said(log, lines[-1][1])) == numbers(0, 30)


@given(
    st.lists(st.tuples(st.integers(-DAY_S, DAY_S), st.integers(1, 9)), max_size=20, unique_by=lambda line: line[0]),
    st.lists(st.integers(1, 60), max_size=5),
)
def test_whatever_the_stamps_every_piece_comes_once(lines: list[tuple[int, int]], stops: list[int]) -> None:
    """The parts of one long line look alike. The agent may stop anywhere, and what it read grows meanwhile."""
    entries = [(float(at), "same") for at, parts in lines for _ in range(parts)]
    read, cursor, log = 0, None, Docker([])
    for stop in [*sorted(stops), len(entries)]:
        log.entries = entries[:stop]
        new = said(log, cursor)
        # An agent that is killed may have kept an earlier place than the one it has read to.
        kept = new[: max(1, len(new) * 2 // 3)] if stop < len(entries) else new
        read, cursor = read + len(kept), kept[-1][1] if kept else cursor
        assert read + len(new) - len(kept) == len(log.entries)


@pytest.mark.parametrize("gone", [1, 12, 19, 20, 25])
def test_a_log_that_lost_its_beginning_gives_all_that_is_new_in_it(gone: int) -> None:
    cursor = said(stepped())[19][1]
    log = stepped()
    log.entries = log.entries[gone:]
    rest = said(log, cursor)
    assert texts(rest) == numbers(max(gone, 20), 30)
    log.entries = [*log.entries, (0.0, "last\n")]
    assert texts(said(log, rest[-2][1])) == ["29\n", "last\n"]


def test_only_the_end_of_a_long_log_is_read_again() -> None:
    log = stepped(6000)
    reader = engine_of(log).log("c")
    assert len(list(reader.read())) == 6000
    for new, most in ((0, 20), (1, 20), (300, 1500), (300, 700), (300, 700)):
        log.entries = [*log.entries, *((-9000.0 - len(log.entries) - n, "more\n") for n in range(new))]
        log.served = 0
        assert len(list(reader.read())) == new
        assert log.served <= most


def test_a_run_that_looks_alike_is_counted_from_its_beginning() -> None:
    """Twenty parts of one line do not fit the few entries that are read first."""
    log = Docker([(float(n), f"{n}\n") for n in range(40)] + [(99.0, "part")] * 20)
    _, cursor = said(log)[49]
    log.entries = log.entries[1:]
    assert texts(said(log, cursor)) == ["part"] * 10


def test_a_line_without_an_end_is_not_looked_for_in_ever_wider_parts() -> None:
    log = Docker([(0.0, "first\n")] + [(1.0, "part")] * 5000)
    reader = engine_of(log).log("c")
    assert len(list(reader.read())) == 5001
    log.entries, log.served = [*log.entries, (1.0, "part")], 0
    assert len(list(reader.read())) == 1
    assert log.served == len(log.entries)


@pytest.mark.parametrize("tear", [0, 10, 25, 29])
@pytest.mark.parametrize("read", [0, 5, 27])
def test_of_a_log_that_a_full_disk_tore_all_but_the_torn_entry_is_read(tear: int, read: int) -> None:
    before = stepped()
    cursor = said(before)[read - 1][1] if read else None
    log = stepped()
    log.entries[tear] = (0.0, TORN)
    reader = engine_of(log).log("c", after=cursor)
    lines = [line.text.decode() for line in reader.read()]
    assert lines == [text for n, text in enumerate(numbers(0, 30)) if n >= read and n != tear]
    log.entries = [*log.entries, *((n + 50.0, f"{n}\n") for n in range(30, 400))]
    assert [line.text.decode() for line in reader.read()] == numbers(30, 400)
    assert list(reader.read()) == []
