"""What an agent does by itself: the trial dump, regular checkpoints, a drain; and what it declines."""

import asyncio
import json
import subprocess
from contextlib import suppress

from everlease.wire.node import Decline
from provider_agent.control import DEPARTED, ask
from tests.integration.agent.conftest import World
from tests.integration.agent.test_crashes import connected, goes_on

WATCHES = """
import ctypes, time
libc = ctypes.CDLL(None)
watch = libc.inotify_init()
libc.inotify_add_watch(watch, b"/tmp", 2)
for n in range(1, 100000):
    print('step', n, flush=True)
    time.sleep(0.05)
"""


def test_the_trial_and_then_one_checkpoint_per_interval(world: World) -> None:
    agent = world.agents["a"]
    agent.environment["EVERLEASE_AGENT_TRIAL_AFTER_S"] = "1"
    connected(world, agent)
    job = world.job(min_interval_s=1, max_lost_work_s=2)
    job.run_on(agent)
    trial = world.gateway.until(lambda g: next((n for n in g.notices if n.kind == "trial_dump"), None))
    assert trial.data["ok"]
    world.gateway.until(lambda g: len(g.commits) >= 4)
    first, *later = world.gateway.commits[:4]
    assert [commit.checkpoint_seq for commit in world.gateway.commits[:4]] == [1, 2, 3, 4]
    assert all(commit.new_bytes < first.new_bytes for commit in later), "unchanged blocks are not sent again"
    world.gateway.until(lambda g: g.beats[agent.address].jobs[0].loss_bound_s is not None)
    goes_on(world, job)
    job.stop(agent)


def test_a_full_disk_is_told_and_lengthens_the_loss_while_the_job_goes_on(world: World) -> None:
    agent = world.agents["a"]
    agent.environment["EVERLEASE_AGENT_TRIAL_AFTER_S"] = "1"
    dumps = agent.root / "jobs"
    dumps.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", dumps], check=True)
    try:
        connected(world, agent)
        job = world.job(min_interval_s=1, max_lost_work_s=2)
        job.run_on(agent)
        world.gateway.until(lambda g: g.commits)
        with suppress(OSError), (dumps / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(1 << 20))
                filler.flush()
        told = world.gateway.until(lambda g: next((n for n in g.notices if n.kind == "disk_full"), None))
        assert "full" in told.detail or "No space" in told.detail
        assert told.data["retryable"]
        before = len(world.gateway.commits)
        world.gateway.until(lambda g: (g.beats[agent.address].jobs[0].loss_bound_s or 0) > 4)
        goes_on(world, job)
        (dumps / "filler").unlink()
        world.gateway.until(lambda g: len(g.commits) > before)
        goes_on(world, job)
        job.stop(agent)
    finally:
        agent.kill()
        subprocess.run(["umount", "--lazy", dumps], check=True)


def test_a_program_that_cannot_be_dumped_is_reported_and_runs_on(world: World) -> None:
    agent = world.agents["a"]
    agent.environment["EVERLEASE_AGENT_TRIAL_AFTER_S"] = "1"
    connected(world, agent)
    job = world.job(WATCHES)
    job.run_on(agent)
    trial = world.gateway.until(lambda g: next((n for n in g.notices if n.kind == "trial_dump"), None))
    if not trial.data["ok"]:
        assert trial.data["permanent"]
        assert trial.data["next_mode"] == "none"
    goes_on(world, job)
    job.stop(agent)


def test_a_drain_ends_bidding_and_an_empty_agent(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    request = {"command": "drain", "exit_when_empty": True}
    answer = asyncio.run(ask(agent.root / "agent.sock", request))
    assert answer == {"ok": True, "jobs_left": 1}
    world.gateway.until(lambda g: agent.address in g.draining)
    other = world.job()
    declined = world.gateway.call(agent.address, other.call(agent))
    assert isinstance(declined, Decline)
    assert "draining" in declined.reason
    status = asyncio.run(ask(agent.root / "agent.sock", {"command": "status"}))
    assert json.loads(json.dumps(status))["jobs"][0]["phase"] == "running"
    job.stop(agent)
    assert agent.ended() == DEPARTED


def test_two_jobs_run_side_by_side_and_a_slow_command_delays_no_heartbeat(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    jobs = [world.job(), world.job()]
    for job in jobs:
        job.run_on(agent)
    for job in jobs:
        goes_on(world, job)
    for job in jobs:
        job.stop(agent)
