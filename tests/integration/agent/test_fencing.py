"""Links that break, fences that move on, checkpoints that are held or damaged, and how containers end."""

import os
import signal
import time

from everlease.store.cid import parse_cid
from everlease.wire.commands import Freeze, Restart, TakeCheckpoint, Thaw
from provider_agent import guards
from tests.integration.agent.conftest import World
from tests.integration.agent.test_crashes import connected, goes_on
from tests.integration.agent.test_move import numbers

COUNTS_IN_A_FILE = """
import os, time
n = int(open('/checkpoint/n').read()) if os.environ.get('EVERLEASE_RESUME') else 0
while True:
    n += 1
    print('step', n, flush=True)
    with open('/checkpoint/new', 'w') as file:
        file.write(str(n))
    os.replace('/checkpoint/new', '/checkpoint/n')
    time.sleep(0.1)
"""
FAILS = "import time, sys\nfor n in range(1, 40):\n print('step', n, flush=True); time.sleep(0.1)\nsys.exit(3)"


def test_a_cut_off_host_freezes_and_goes_on_when_its_fence_is_confirmed(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    world.gateway.hang_up()
    time.sleep(world.gateway.fence_after + 2)
    world.gateway.hang_up(False)
    world.gateway.until(lambda g: any(n.kind == "thawed" for n in g.notices))
    goes_on(world, job)
    job.stop(agent)


def test_a_zombie_is_refused_and_cleans_up(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    take = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    assert world.gateway.do(agent.address, take).ok
    world.gateway.hang_up()
    time.sleep(world.gateway.fence_after + 1)
    world.gateway.owner[job.id] = ("0x" + "99" * 20, job.fence + 1)
    world.gateway.hang_up(False)
    world.gateway.until(lambda g: {"heartbeat", "checkpoint", "receipt"} <= set(g.refused))
    assert len(world.gateway.commits) == 1
    folder = agent.root / "jobs" / job.id
    world.gateway.until(lambda g: not folder.exists())
    time.sleep(2)
    assert agent.log().count("is removed here: the marketplace") == 1, "said once, however often it is refused"


def test_a_job_that_ended_is_removed_without_a_word_about_another_host(world: World) -> None:
    """The marketplace closes the job while its host still clears up: each heartbeat until then is refused."""
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job("print('done')")
    job.run_on(agent)
    world.gateway.until(lambda g: any(n.kind == "exited" for n in g.notices))
    del world.gateway.owner[job.id]
    world.gateway.until(lambda g: g.refused["heartbeat"] and not (agent.root / "jobs" / job.id).exists())
    time.sleep(2)
    said = [line for line in agent.log().splitlines() if job.id[:10] in line and "removed" in line]
    assert len(said) == 1, said
    assert "the marketplace refused its heartbeat: it ended or moved" in said[0]
    assert "another host" not in agent.log()


def test_a_refusal_of_an_older_heartbeat_drops_nothing(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    world.gateway.tell(agent.address, {"type": "heartbeat_ack", "ack": 1, "refused": [job.id]})
    goes_on(world, job)
    job.stop(agent)


def test_a_held_job_goes_on_where_it_was_frozen(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    hold = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("hold"), hold=True)
    assert world.gateway.do(agent.address, hold).ok
    held = len(job.lines())
    time.sleep(2)
    assert len(job.lines()) == held, "a held job says nothing more"
    beat = world.gateway.beats[agent.address]
    assert [line.serving for line in beat.jobs] == [False]
    thaw = Thaw(job_id=job.id, fence=job.fence, step=job.step("thaw"), new_fence=job.fence)
    assert world.gateway.do(agent.address, thaw).ok
    goes_on(world, job)
    job.stop(agent)


def test_a_failed_store_leaves_the_held_job_running(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    agent.kill()
    agent.environment["EVERLEASE_AGENT_STORE_URL"] = "http://127.0.0.1:9"
    connected(world, agent)
    hold = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("hold"), hold=True)
    failed = world.gateway.do(agent.address, hold)
    assert not failed.ok
    assert failed.retryable
    goes_on(world, job)
    job.stop(agent)


def test_a_damaged_block_is_named_and_nothing_runs(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    take = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    assert world.gateway.do(agent.address, take).ok
    victim = parse_cid(world.gateway.commits[0].block_cids[0])
    job.stop(agent)
    world.blocks.delete([victim])
    lease = job.award(agent)
    assert world.gateway.do(agent.address, job.prepare()).ok
    refused = world.gateway.do(agent.address, job.start(agent, lease))
    assert not refused.ok
    assert refused.result["damaged"] == victim
    job.stop(agent)


def test_a_failing_container_is_reported_and_restarted_from_its_checkpoint(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job(FAILS)
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    take = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    taken = world.gateway.do(agent.address, take)
    assert taken.ok, taken
    notice = world.gateway.until(lambda g: next((n for n in g.notices if n.kind == "exited"), None))
    assert notice.data["code"] == 3
    assert "step 39" in notice.data["log_tail"]
    assert numbers(job.lines()) == list(range(1, 40))
    seq, head = world.gateway.heads[job.id]
    restart = Restart(
        job_id=job.id,
        fence=job.fence,
        step=job.step("restart"),
        checkpoint=head,
        checkpoint_seq=seq,
        checkpoint_node="0x" + "ab" * 20,
    )
    forged = world.gateway.do(agent.address, restart)
    assert not forged.ok, "another node than the one that signed the manifest is said to have committed it"
    assert "committed it" in forged.error
    assert forged.result["damaged"] == head
    restart = restart.model_copy(update={"step": job.step("restart"), "checkpoint_node": agent.address})
    restarted = world.gateway.do(agent.address, restart)
    assert restarted.ok, restarted
    world.gateway.until(lambda g: sum(n.kind == "exited" for n in g.notices) == 2)
    again = numbers(job.lines())[39:]
    assert again[0] > 1
    assert again == list(range(again[0], 40)), "what it says again is kept"
    job.stop(agent)


def test_a_repeated_command_is_answered_from_the_journal(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    take = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    first = world.gateway.do(agent.address, take)
    time.sleep(2)
    world.gateway.command(agent.address, take)
    world.gateway.until(lambda g: g.answers[(job.id, take.step)] >= 2)
    assert world.gateway.heads[job.id] == (1, first.result["manifest"])
    job.stop(agent)


def test_files_mode_starts_again_over_its_files(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job(COUNTS_IN_A_FILE)
    lease = job.award(agent)
    assert world.gateway.do(agent.address, job.prepare()).ok
    assert world.gateway.do(agent.address, job.start(agent, lease, mode="files")).ok
    world.gateway.until(lambda g: len(job.lines()) > 5)
    take = TakeCheckpoint(job_id=job.id, fence=job.fence, step=job.step("checkpoint"))
    taken = world.gateway.do(agent.address, take)
    assert taken.ok, taken
    assert taken.result["mode"] == "files"
    job.stop(agent)
    lease = job.award(agent)
    assert world.gateway.do(agent.address, job.prepare()).ok
    started = world.gateway.do(agent.address, job.start(agent, lease, mode="files"))
    assert started.ok, started
    world.gateway.until(lambda g: len(job.lines()) > 2)
    assert numbers(job.lines())[0] > 4
    job.stop(agent)


def test_a_void_award_is_frozen_and_the_next_one_starts_over(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    freeze = Freeze(job_id=job.id, fence=job.fence, step=job.step("freeze"))
    assert world.gateway.do(agent.address, freeze).ok
    time.sleep(1.5)
    still = len(job.lines())
    time.sleep(1.5)
    assert len(job.lines()) == still
    job.run_on(agent)
    goes_on(world, job)
    job.stop(agent)


def test_nothing_starts_that_was_not_bid_on(world: World) -> None:
    agent = world.agents["a"]
    connected(world, agent)
    job, other = world.job(), world.job()
    lease = job.award(agent)
    never = world.gateway.do(agent.address, other.prepare(fence=1))
    assert not never.ok
    assert "never bid" in never.error
    changed = dict(job.prepare().spec, image_digest="sha256:" + "00" * 32)
    assert "not the one of the order" in world.gateway.do(agent.address, job.prepare(spec=changed)).error
    assert world.gateway.do(agent.address, job.prepare()).ok
    dearer = world.gateway.do(agent.address, job.start(agent, lease, rate_per_hour=1))
    assert "lease" in dearer.error
    wrong = {job.generation: world.gateway.sealed(agent.address, job.id, 0)[:-8] + "AAAAAAA="}
    assert "not sealed to this node" in world.gateway.do(agent.address, job.start(agent, lease, keys=wrong)).error
    assert world.gateway.do(agent.address, job.start(agent, lease)).ok
    job.stop(agent)


def test_a_guard_that_does_not_start_holds_up_no_heartbeat(world: World) -> None:
    """Its own container stands still; every other of the node would be lost with the heartbeats."""
    agent = world.agents["a"]
    connected(world, agent)
    job = world.job()
    job.run_on(agent)
    world.gateway.until(lambda g: len(job.lines()) > 5)
    (folder,) = [path.parent for path in (agent.root / "runtime" / "containers").glob("*/outer.json")]
    lock, pid = folder / "guard.lock", int((folder / "guard.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    lock.unlink()
    lock.mkdir()
    os.kill(pid, signal.SIGKILL)
    longest, last, ends = 0.0, time.monotonic(), time.monotonic() + 12
    before = (folder / "lease").read_text()
    while time.monotonic() < ends:
        assert not guards.alive(folder)
        now = (folder / "lease").read_text()
        if now != before:
            longest, last, before = max(longest, time.monotonic() - last), time.monotonic(), now
        time.sleep(0.05)
    assert max(longest, time.monotonic() - last) < 6, "no heartbeat was acknowledged for so many seconds"
    assert guards.stands_still(folder)
    lock.rmdir()
    world.gateway.until(lambda g: guards.alive(folder))
    goes_on(world, job)
    job.stop(agent)
