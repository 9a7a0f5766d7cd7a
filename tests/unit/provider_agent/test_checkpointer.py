"""A commit that was asked for is settled, however the agent that asked ended."""

import asyncio
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from everlease.store.cid import cid_of
from everlease.wire.commands import Prepare
from everlease.wire.node import CommitAnswer
from provider_agent.checkpointer import Checkpoints
from provider_agent.errors import CheckpointFailed
from provider_agent.host import Folders
from provider_agent.jobs import Job
from provider_agent.journal import Journal
from provider_agent.records import JobRecord

JOB = "0x" + "ab" * 32
HEADS = tuple(cid_of(bytes([number])) for number in range(4))


def held() -> JobRecord:
    """The job as it runs here, with its first checkpoint committed."""
    prepare = Prepare(job_id=JOB, fence=1, step="prepare/1", spec={}, store_token="t")
    record = JobRecord(job_id=JOB, fence=1, phase="running", prepare=prepare, container="c" * 64, mode="files")
    return record.model_copy(update={"head": HEADS[1], "head_seq": 1})


class Gateway:
    """Commits in turn what follows on its head; answers only while it is ``there``."""

    def __init__(self) -> None:
        self.seq, self.there = 1, False

    def answer(self, body: dict[str, Any]) -> CommitAnswer:
        if body["checkpoint_seq"] == self.seq + 1:
            self.seq += 1
        ok = body["checkpoint_seq"] == self.seq
        return CommitAnswer(seq=0, request=body["request"], ok=ok, head=HEADS[self.seq], error="" if ok else "no")


class Agent:
    """A job's checkpoints over a real journal; what is dumped and stored does not matter here."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal = Journal(folder / "journal.db")
        nothing = SimpleNamespace(reach=lambda _: None, unix=lambda: 1000.0, boottime=lambda: 5.0)
        host: Any = SimpleNamespace(
            journal=self.journal, folders=Folders(folder), crash=nothing, clock=nothing, deadline=lambda: 0.0,
            messenger=self.journal, engine=SimpleNamespace(state=folder), dumper=None, chain_id=1, escrow="0x",
        )  # fmt: skip
        self.job = Job(host, JOB)
        self.checkpoints = self.job.checkpoints = Checkpoints(host, JOB, cast("Any", None), self.job.cancel)
        monkeypatch.setattr(self.checkpoints, "_dump", self._dump)
        monkeypatch.setattr(self.checkpoints, "_store", self._store)

    async def _dump(self, pending: Any, *_: Any) -> Any:
        self.checkpoints._advance(pending, {"phase": "dumped", "taken_at": 1.0, "pause_s": 0.0})
        return SimpleNamespace(mode="files", pause_s=0.0, total_s=0.0)

    def _store(self, pending: Any, *_: Any) -> Any:
        manifest = SimpleNamespace(
            seq=pending.seq, predecessor=HEADS[pending.seq - 1], cids=set, mode="files", generation=1,
            generations=lambda: {1}, requirements={},
        )  # fmt: skip
        stats = SimpleNamespace(logical_bytes=1, new_bytes=1)
        found = SimpleNamespace(stats=stats)
        return SimpleNamespace(cid=HEADS[pending.seq], manifest=manifest, digest="0x", signature="0x", found=found)

    async def deliver(self, gateway: Gateway, *, once: bool = False) -> None:
        """The link: whatever lies in the outbox is sent, ``once`` or again and again."""
        place = 0
        while True:
            for message in self.journal.outgoing(place) if gateway.there else ():
                place = message.id if once else 0
                answer = gateway.answer(message.body)
                if self.checkpoints.expects(answer.request):
                    self.checkpoints.answered(answer)
                else:
                    self.journal.acknowledged([message.key])
            await asyncio.sleep(0.01)


def test_an_answer_that_could_not_be_written_down_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same session, in which the link sends each place of the outbox once."""
    gateway, agent = Gateway(), Agent(tmp_path, monkeypatch)
    failed: list[JobRecord] = []
    gateway.there, put = True, agent.journal.put_job
    (tmp_path / "jobs" / JOB).mkdir(parents=True)
    put(held())

    def put_job(record: JobRecord) -> None:
        if not failed and record.pending is None and record.head_seq == 2:
            failed.append(record)
            raise sqlite3.OperationalError("database or disk is full")
        put(record)

    monkeypatch.setattr(agent.journal, "put_job", put_job)

    async def both() -> int:
        link = asyncio.create_task(agent.deliver(gateway, once=True))
        try:
            with pytest.raises(CheckpointFailed):
                await agent.checkpoints.take(cast("Any", None), cast("Any", None))
            async with asyncio.timeout(20):
                return (await agent.checkpoints.take(cast("Any", None), cast("Any", None))).seq
        finally:
            link.cancel()
            await asyncio.gather(link, return_exceptions=True)

    assert asyncio.run(both()) == 3
    assert failed


@pytest.mark.parametrize("end", ["orderly", "killed"])
def test_an_agent_that_ends_in_the_middle_of_a_commit_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Else the next agent would follow on a checkpoint that is no longer the newest, and be refused for ever."""
    gateway = Gateway()
    (tmp_path / "jobs" / JOB).mkdir(parents=True)

    async def first() -> None:
        agent = Agent(tmp_path, monkeypatch)
        agent.journal.put_job(held())
        taking = asyncio.create_task(agent.checkpoints.take(cast("Any", None), cast("Any", None)))
        await asyncio.sleep(0.2)

        async def cancelled() -> None:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

        if end == "orderly":
            agent.job.life = cast("Any", SimpleNamespace(end=cancelled))
            await agent.job.let_go()
            agent.journal.close()

    async def second() -> int:
        agent = Agent(tmp_path, monkeypatch)
        gateway.there = True
        link = asyncio.create_task(agent.deliver(gateway))
        try:
            async with asyncio.timeout(20):
                return (await agent.checkpoints.take(cast("Any", None), cast("Any", None))).seq
        finally:
            link.cancel()
            await asyncio.gather(link, return_exceptions=True)
            agent.journal.close()

    asyncio.run(first())
    assert asyncio.run(second()) == 3
    assert gateway.seq == 3
