"""A job that takes whatever it is given: agent and guard come first all the same."""

import json
import time

from hosts.market import FENCE_S
from hosts.registry import scenario
from hosts.stage import MOVE_S, Broken, Host, Stage
from provider_agent.cgroups import MEMORY_LOW, WEIGHTS

PROCESSES = 40
SPIN = f"n=0; while [ $n -lt {PROCESSES} ]; do n=$((n+1)); (while :; do :; done) & done; wait"
CONTAINERS = "/var/lib/everlease/runtime/containers"
SETTINGS = """cd /sys/fs/cgroup/everlease.slice
for part in agent guards jobs; do
    echo $part $(cat everlease-$part.slice/cpu.weight) $(cat everlease-$part.slice/memory.low)
done
for pid in /var/lib/everlease/runtime/containers/*/guard.pid; do
    echo guard $(cat /proc/$(cat $pid)/oom_score_adj) 0
done
echo agent-oom $(cat /proc/$(systemctl show --value -p MainPID everlease-agent)/oom_score_adj) 0
for unit in $(systemctl list-units --plain --no-legend 'everlease-guard-*.service' | cut -d' ' -f1); do
    [ $(systemctl show --value -p ManagedOOMPreference $unit) = omit ] || echo unit-not-spared 0 0
done
"""
LATE_S = 2.0
"""A guard looks every 0.1 s; on an emulated processor a look alone may take half a second."""


@scenario()
def greedy(stage: Stage) -> str:
    """Forty busy processes and one core: weights are what they should be, a checkpoint comes, the fence is not late."""
    stage.launch_other(
        "greedy", ["/bin/sh", "-c", SPIN], resources={"cpus": 1, "memory": "128MiB", "disk": "1GiB", "pids": 64}
    )  # fmt: skip
    stage.await_checkpoint(timeout_s=2 * MOVE_S)
    host, fence = stage.holder(), stage.fence()
    _compare(host)
    if _fenced(host) or stage.fence() != fence:
        raise Broken("the job was fenced while its host was connected: it starved agent or guard")
    host.guest.link(up=False)
    try:
        late = _fence_came(host)
    finally:
        host.guest.link(up=True)
    stage.await_connected(host)
    return f"{PROCESSES} busy processes checkpointed, frozen {late:.2f} s after the lease's end"


def _compare(host: Host) -> None:
    """Whether kernel and systemd have what we asked for. Raises Broken, GuestError."""
    wanted = {part: {(weight, 0 if part == "jobs" else MEMORY_LOW)} for part, weight in WEIGHTS.items()}
    wanted |= {"guard": {(-1000, 0)}, "agent-oom": {(-900, 0)}}
    found: dict[str, set[tuple[int, int]]] = {}
    for line in host.guest.must(SETTINGS).splitlines():
        name, first, second = line.split()
        found.setdefault(name, set()).add((int(first), int(second)))
    if found != wanted:
        raise Broken(f"weights and preferences are {found}, not {wanted}")


def _fence_came(host: Host) -> float:
    """Until the guard has frozen the job; seconds after the lease's end, by the host's boot clock. Raises Broken."""
    give_up = time.monotonic() + FENCE_S + MOVE_S
    while not (found := _fenced(host)):
        if time.monotonic() > give_up:
            raise Broken("the guard never froze the job")
        time.sleep(2)
    late = max(fence["at"] - fence["deadline"] for fence in found)
    if late > LATE_S:
        raise Broken(f"the guard froze the job {late:.2f} s late")
    return late


def _fenced(host: Host) -> list[dict[str, float]]:
    """What guards noted when they froze."""
    text = host.guest.must(f"for file in {CONTAINERS}/*/fenced; do [ -e $file ] && cat $file && echo; done; true")
    return [json.loads(line) for line in text.splitlines()]
