"""Who waits for news of a job: event streams, woken by NOTIFY. Lives on the event loop alone."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

MOST, MOST_OF_ONE_JOB = 1000, 20


class Followers:
    """Wake-ups by job id; a wake-up says "look", never what there is to see."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._count = 0
        self.closing = asyncio.Event()

    def full(self, job_id: str) -> bool:
        """Whether this process follows as many streams as it can, of this job or of all."""
        return len(self._waiting.get(job_id, ())) >= MOST_OF_ONE_JOB or self._count >= MOST

    @contextmanager
    def follow(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at every news of this job, until the block ends."""
        news = asyncio.Event()
        self._waiting.setdefault(job_id, set()).add(news)
        self._count += 1
        try:
            yield news
        finally:
            waiting = self._waiting[job_id]
            waiting.discard(news)
            self._count -= 1
            if not waiting:
                del self._waiting[job_id]

    def wake(self, job_id: str) -> None:
        """There is news of this job."""
        for news in self._waiting.get(job_id, ()):
            news.set()

    def wake_all(self) -> None:
        """There may be news of any job (notifications were lost, or we are closing)."""
        for job_id in list(self._waiting):
            self.wake(job_id)

    def close(self) -> None:
        """End every stream."""
        self.closing.set()
        self.wake_all()
