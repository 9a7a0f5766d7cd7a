"""The core six: what every kind of host must get right."""

import tempfile
from pathlib import Path

from everlease.domain.job import JobState
from hosts.reference import reference
from hosts.registry import scenario
from hosts.stage import MOVE_S, Broken, Stage


@scenario(core=True)
def run(stage: Stage) -> str:
    """Run, checkpoint, die of SIGKILL, restore on the spot, end; the output file is the quiet run's."""
    steps = 300
    job = stage.launch(steps)
    stage.await_checkpoint()
    # The job's init is killed as the kernel's OOM killer would: exit 137, restored from the checkpoint in place.
    stage.holder().guest.must("pkill -KILL -x chain")
    stage.await_since(stage.mark(), 20)
    job.wait("the job's end", lambda: job.state() is JobState.SUCCEEDED, 3 * MOVE_S)
    note = stage.verdict()
    with tempfile.TemporaryDirectory(prefix="everlease-bench-") as folder:
        kept = stage.outputs(Path(folder) / "out").decode()
    if kept != "".join(f"{number} {reference()[number]}\n" for number in range(1, steps + 1)):
        raise Broken("the output file differs from the quiet run's")
    return f"{note}, output file exact"


@scenario(core=True)
def migrate(stage: Stage) -> str:
    """A to B and back to A by the tenant's wish: no step is lost or done twice."""
    job = stage.steady()
    times = []
    for _ in range(2):
        fence, before = stage.fence(), stage.holder()
        stage.look()
        job.ask("migrate")
        times.append(stage.await_moved(fence))
        if stage.holder() is before:
            raise Broken(f"the job went from {before.name} to itself")
    note = stage.verdict()
    numbers = [step.number for run in stage.witness.runs.values() for step in run.steps]
    if len(numbers) != len(set(numbers)):
        raise Broken(f"{len(numbers) - len(set(numbers))} steps were done twice in planned moves")
    return f"{note}, moved in {times[0]:.0f} s and {times[1]:.0f} s, no step lost"


@scenario(core=True)
def power_cut(stage: Stage) -> str:
    """The holder's power fails: the job goes on elsewhere, and the host comes back by itself."""
    stage.steady()
    fence, host = stage.fence(), stage.holder()
    stage.look()
    host.guest.power_cut()
    took = stage.await_moved(fence)
    host.guest.start()
    stage.await_connected(host)
    return f"{stage.verdict()}, on {stage.holder().name} after {took:.0f} s, host back"


@scenario(core=True)
def link_cut(stage: Stage) -> str:
    """The holder's cable is pulled: its copy freezes before another starts, and stays so when the cable is back."""
    stage.steady()
    fence, host = stage.fence(), stage.holder()
    host.guest.link(up=False)
    took = stage.await_moved(fence)
    stage.look()
    host.guest.link(up=True)
    stage.await_connected(host)
    stage.await_steps(fence, 10, MOVE_S)
    return f"{stage.verdict()}, on {stage.holder().name} after {took:.0f} s"


@scenario(core=True)
def agent_unit(stage: Stage) -> str:
    """The agent's unit is killed, restarted and stopped with a job alive."""
    stage.steady()
    stayed = {}
    for verb in ("kill -s KILL", "restart"):
        host, fence = stage.holder(), stage.fence()
        stage.look()
        stage.unit(host, verb)
        mark = stage.mark()
        stage.await_connected(host)
        stage.await_since(mark, 5)
        stayed[verb] = stage.fence() == fence
    if not stayed["restart"]:
        raise Broken("a restart of the agent cost the host its job")
    fence, host = stage.fence(), stage.holder()
    stage.look()
    stage.unit(host, "stop")
    took = stage.await_moved(fence)
    how = stage.left_in_order(fence)
    stage.unit(host, "start")
    stage.await_connected(host)
    killed = "stayed" if stayed["kill -s KILL"] else "moved"
    return f"{stage.verdict()}, {killed} at kill, stayed at restart; {how} at stop in {took:.0f} s"


@scenario(core=True)
def reboot(stage: Stage) -> str:
    """`reboot` on the holder: the job goes on, and the agent is back by itself."""
    stage.steady()
    host = stage.holder()
    how = stage.go_down(host, "systemctl reboot")
    host.guest.await_ssh()
    stage.await_connected(host)
    return f"{stage.verdict()}, {how}, agent back by itself"
