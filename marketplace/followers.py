"""Who waits for news of a job: event streams, woken by NOTIFY. Lives on the event loop alone."""

import asyncio
from collections import Counter

MOST, MOST_OF_ONE_JOB, MOST_OF_ONE_ACCOUNT = 1000, 20, 60


class Follower:
    """One stream's place. ``news`` is set at every news of its job; ``leave`` gives the place back."""

    def __init__(self, followers: "Followers", job_id: str, account: str) -> None:
        self.job_id, self.account = job_id, account
        self.news = asyncio.Event()
        self._followers = followers

    def leave(self) -> None:
        """Follow no more; again is fine."""
        self._followers.forget(self)


class Followers:
    """Wake-ups by job id; a wake-up says "look", never what there is to see."""

    def __init__(self) -> None:
        self._of_job: dict[str, set[Follower]] = {}
        self._of_account: Counter[str] = Counter()
        self.closing = asyncio.Event()

    def enter(self, job_id: str, account: str) -> Follower | None:
        """A place, or None where there are as many as there may be: of this job, of this account, or of all."""
        if len(self._of_job.get(job_id, ())) >= MOST_OF_ONE_JOB:
            return None
        if self._of_account[account] >= MOST_OF_ONE_ACCOUNT or self._of_account.total() >= MOST:
            return None
        follower = Follower(self, job_id, account)
        self._of_job.setdefault(job_id, set()).add(follower)
        self._of_account[account] += 1
        return follower

    def forget(self, follower: Follower) -> None:
        """Take a follower's place back, if it has one."""
        of_job = self._of_job.get(follower.job_id, set())
        if follower not in of_job:
            return
        of_job.discard(follower)
        self._of_account[follower.account] -= 1
        if not of_job:
            del self._of_job[follower.job_id]
        if not self._of_account[follower.account]:
            del self._of_account[follower.account]

    def wake(self, job_id: str) -> None:
        """There is news of this job."""
        for follower in self._of_job.get(job_id, ()):
            follower.news.set()

    def wake_all(self) -> None:
        """There may be news of any job (notifications were lost, or we are closing)."""
        for job_id in list(self._of_job):
            self.wake(job_id)

    def close(self) -> None:
        """End every stream."""
        self.closing.set()
        self.wake_all()
