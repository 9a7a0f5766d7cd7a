"""When a checkpoint may begin: after a restart of the agent the job is frozen, or soon will be, until a heartbeat."""

import asyncio
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from provider_agent import guard
from provider_agent.stillness import Stillness


class Lease:
    """What the heartbeats say; over until one is answered."""

    deadline = 0.0


def still(lease: Lease, *, confirmed: bool = True) -> Stillness:
    return Stillness(lambda: lease.deadline, lambda: confirmed)


@pytest.fixture
def lease() -> Lease:
    return Lease()


def test_it_waits_for_an_answered_heartbeat_and_for_the_thaw(tmp_path: Path, lease: Lease) -> None:
    async def scene() -> None:
        waiting = asyncio.create_task(still(lease).may_run(tmp_path, Event()))
        await asyncio.sleep(0.3)
        assert not waiting.done(), "nothing is fenced yet, but the lease of the agent before is all there is"
        (tmp_path / "fenced").touch()
        lease.deadline = guard.boottime() + 60
        await asyncio.sleep(0.3)
        assert not waiting.done(), "the guard froze it meanwhile"
        (tmp_path / "fenced").unlink()
        async with asyncio.timeout(5):
            assert await waiting

    asyncio.run(scene())


def test_a_cancelled_job_does_not_wait(tmp_path: Path, lease: Lease) -> None:
    cancel = Event()
    cancel.set()
    assert not asyncio.run(still(lease).may_run(tmp_path, cancel))


def test_it_does_not_wait_for_ever(tmp_path: Path, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provider_agent.stillness.ANSWERED_S", 0.3)
    assert not asyncio.run(still(lease).may_run(tmp_path, Event()))


def test_a_job_without_a_container_has_nothing_to_wait_for(lease: Lease) -> None:
    assert asyncio.run(still(lease).may_run(None, Event()))


@pytest.mark.parametrize("confirmed", [True, False])
def test_the_nodes_lease_thaws_no_job_whose_fence_may_be_stale(
    tmp_path: Path, lease: Lease, monkeypatch: pytest.MonkeyPatch, confirmed: bool
) -> None:
    done: list[tuple[str, float]] = []
    found = SimpleNamespace(
        fenced=lambda folder: False,
        thaw=lambda folder, deadline: done.append(("thaw", deadline)),
        extend=lambda folder, deadline: done.append(("extend", deadline)),
    )
    monkeypatch.setattr("provider_agent.stillness.guards", found)
    lease.deadline = 60.0
    assert asyncio.run(still(lease, confirmed=confirmed).thaw(tmp_path)) is confirmed
    assert done == ([("thaw", 60.0)] if confirmed else [("extend", 0.0)])
