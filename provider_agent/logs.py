"""A job's output to the marketplace: one chunk at a time, the next once the last arrived.

Docker keeps the lines; the journal keeps how far they were acknowledged, as a cursor and as an offset in bytes.
"""

import asyncio
import codecs
import logging
import threading
import time
from collections import deque

from provider_agent.host import Host
from provider_agent.records import LogPosition
from provider_agent.runtime.container_log import LogLine

log = logging.getLogger(__name__)
CHUNK_BYTES = 60_000
AHEAD_BYTES = 1 << 20
READ_EVERY_S = 0.25
SPARED = 3
"""A reading that took long is followed by a pause so many times as long: a job's output must not cost its host."""
UNSEEN_AT_MOST = 40
"""A log whose file does not change is read all the same after so many looks: whatever the file is, Docker decides."""
POLL_S, QUIET_S, DRAIN_S = 0.05, 0.3, 10.0


class LogFollower:
    """Follows the output of one container until `close`, or until the container ended and all was delivered."""

    def __init__(self, host: Host, job_id: str, container: str) -> None:
        self._host, self._job_id, self._container = host, job_id, container
        self._lines: deque[LogLine] = deque()
        self._ahead = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._room = threading.Condition()
        self._closed = self._ended = self._sending = self._asked = False
        self._begun = self._read_through = self._runs = 0
        self._news = asyncio.Event()
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Read in a thread of its own (Docker's stream blocks), send from here. Again is fine: it goes on from what was
        acknowledged, and the reader of the run before ends.
        """
        loop = asyncio.get_running_loop()
        position = self._position()
        name = f"log {self._container[:12]}"
        with self._room:
            self._runs += 1
            self._lines.clear()
            self._ahead, self._sending = 0, False
            self._decoder.reset()
            self._room.notify_all()
        threading.Thread(target=self._read, args=(loop, position.cursor, self._runs), name=name, daemon=True).start()
        while True:
            await self._news.wait()
            self._news.clear()
            while chunk := self._next_chunk():
                self._sending = True
                await self._deliver(*chunk)
                self._sending = False
            if self._ended:
                self._done.set()
                return

    def close(self) -> None:
        """Stop reading; what is not acknowledged is read again by the next follower."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    async def idle(self) -> None:
        """Wait until all that a container said which stands still was delivered, at most some seconds."""
        await asyncio.sleep(QUIET_S)  # for what is on its way to Docker through pipes
        asked, waited = self._ask(), QUIET_S
        while waited < DRAIN_S and not self._closed and (self._unread(asked) or self._lines or self._sending):
            await asyncio.sleep(POLL_S)
            waited += POLL_S

    async def drained(self) -> None:
        """Wait until everything that an ended container said was delivered, but not for ever."""
        self._ask()
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._done.wait()
        except TimeoutError:
            log.warning("the output of %s is not delivered yet", self._container[:12])

    def _ask(self) -> int:
        """Have the log read now; the number of a reading that begins after this."""
        with self._room:
            self._asked = True
            self._room.notify_all()
            return self._begun + 1

    def _unread(self, asked: int) -> bool:
        return self._read_through < asked and not self._ended

    def _stopped(self, run: int) -> bool:
        return self._closed or self._runs != run

    def _position(self) -> LogPosition:
        record = self._host.journal.job(self._job_id)
        return LogPosition() if record is None else record.stdout

    def _read(self, loop: asyncio.AbstractEventLoop, cursor: str | None, run: int) -> None:
        """Read again and again until the container has ended; a reading that broke goes on after its last line."""
        reader, unseen, spent = self._host.engine.log(self._container, after=cursor), UNSEEN_AT_MOST, 0.0
        while not self._stopped(run):
            with self._room:
                pause = max(READ_EVERY_S, SPARED * spent) if self._begun else 0.0
                self._room.wait_for(lambda: self._stopped(run) or self._asked, pause)
                asked, self._asked = self._asked, False
                self._begun += 1
            try:
                if not reader.moved() and not asked and unseen < UNSEEN_AT_MOST:
                    unseen += 1
                    continue
                unseen, began, held = UNSEEN_AT_MOST, time.monotonic(), 0.0
                # First: the log is whole once Docker says that the container has ended.
                over = self._host.engine.inspect(self._container).exit_code is not None
                for line in reader.read():
                    with self._room:
                        asks = time.monotonic()
                        self._room.wait_for(lambda: self._ahead < AHEAD_BYTES or self._stopped(run))
                        held += time.monotonic() - asks
                        if self._stopped(run):
                            return
                        self._lines.append(line)
                        self._ahead += len(line.text)
                    loop.call_soon_threadsafe(self._news.set)
                self._read_through, unseen, spent = self._begun, 0, time.monotonic() - began - held
                if over:
                    break
            except RuntimeError:
                return
            except Exception as error:
                # docker-py lets errors of requests and urllib3 through; all of them mean: read again.
                log.debug("the log of %s can't be read: %s", self._container[:12], error)
        if self._runs != run:
            return
        self._ended = True
        try:
            loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            return

    def _next_chunk(self) -> tuple[str, str] | None:
        """(text, cursor after it) of the lines at hand, bounded. Of a character that is cut only what is whole."""
        with self._room:
            taken: list[LogLine] = []
            size = 0
            while self._lines and (not taken or size + len(self._lines[0].text) <= CHUNK_BYTES):
                taken.append(self._lines.popleft())
                size += len(taken[-1].text)
            self._ahead -= sum(len(line.text) for line in taken)
            self._room.notify_all()
        if not taken:
            return None
        return self._decoder.decode(b"".join(line.text for line in taken)), taken[-1].cursor

    async def _deliver(self, text: str, cursor: str) -> None:
        """Send in pieces that fit a frame; the position moves with the last of them."""
        record = self._host.journal.job(self._job_id)
        if record is None:
            return
        position = self._position()
        offset = position.offset
        told = position.model_copy(update={"sent": offset + len(text.encode())})
        self._host.journal.put_job(record.model_copy(update={"stdout": told}))
        for place in range(0, len(text), CHUNK_BYTES):
            piece = text[place : place + CHUNK_BYTES]
            body = {"type": "log", "job_id": self._job_id, "fence": record.fence, "stream": "stdout"}
            await self._host.messenger.deliver({**body, "offset": offset, "text": piece})
            offset += len(piece.encode())
        latest = self._host.journal.job(self._job_id)
        if latest is not None:
            arrived = LogPosition(cursor=cursor, offset=offset)
            self._host.journal.put_job(latest.model_copy(update={"stdout": arrived}))
