"""The full list, on Debian 12: what a host's owner, its kernel and its neighbours do to it."""

import re
import subprocess
import time
from contextlib import suppress

from hosts.market import BenchJob
from hosts.registry import scenario
from hosts.stage import FIRST_S, MOVE_S, Broken, Host, Stage

NEIGHBOUR = "while :; do echo here | nc -l -p 7000; done"
SERVICES = """set -e
ip address replace 169.254.169.254/32 dev lo
ip -6 address replace fd00:ec2::254/128 dev lo
ip -6 address replace fd00:ec2::1/128 dev lo
systemd-run -q --collect --unit=metadata4 sh -c 'while :; do echo here | nc -N -l 169.254.169.254 80; done'
systemd-run -q --collect --unit=metadata6 sh -c 'while :; do echo here | nc -N -l fd00:ec2::254 80; done'
"""
"""What a job might find on its host: metadata services of both kinds, and an IPv6 address that ssh listens at."""
_REACH = "timeout 20 bash -c '</dev/tcp/{place}'"


@scenario()
def poweroff(stage: Stage) -> str:
    """`systemctl poweroff` on the holder: the job leaves in order, and the host bids again when it is switched on."""
    stage.steady()
    host = stage.holder()
    how = stage.go_down(host, "systemctl poweroff")
    host.guest.await_off()
    host.guest.start()
    stage.await_connected(host)
    return f"{stage.verdict()}, {how}, host back"


@scenario()
def docker_restart(stage: Stage) -> str:
    """`systemctl restart docker` kills containers: the job goes on from its checkpoint, and no restart is counted."""
    job = stage.steady()
    fence, restarts = stage.fence(), job.restarts()
    stage.look()
    copies = stage.copies()
    stage.holder().guest.must("systemctl restart docker", timeout_s=300)
    stage.await_since(stage.mark(), 10)
    note = stage.verdict()
    if stage.copies() == copies:
        raise Broken(f"the restart was to end the container, and the same copy runs on; {note}")
    if job.restarts() != restarts:
        raise Broken(f"{job.restarts() - restarts} restarts of the program were counted; {note}")
    return f"{note}, {'in place' if stage.fence() == fence else 'moved'}"


LIVE_RESTORE = """set -e
jq '. + {{"live-restore": {value}}}' /etc/docker/daemon.json > /tmp/daemon.json
cat /tmp/daemon.json > /etc/docker/daemon.json
systemctl reload docker
"""


@scenario()
def live_restore(stage: Stage) -> str:
    """Docker restarts and leaves its containers running, as `live-restore` has it: the job must not notice."""
    job = stage.steady()
    fence, restarts, host = stage.fence(), job.restarts(), stage.holder()
    stage.look()
    copies = stage.copies()
    host.guest.must(LIVE_RESTORE.format(value="true"))
    try:
        host.guest.must("systemctl restart docker", timeout_s=300)
        stage.await_since(stage.mark(), 10)
        stage.await_checkpoint(len(job.checkpoints()), MOVE_S)
        stage.await_since(stage.mark(), 10)
    finally:
        host.guest.must(LIVE_RESTORE.format(value="false"))
    note = stage.verdict()
    if (stage.fence(), job.restarts(), stage.copies()) != (fence, restarts, copies):
        raise Broken(f"the job did not run on as it was; {note}")
    return f"{note}, the same copy, a checkpoint after it"


@scenario()
def docker_reinstall(stage: Stage) -> str:
    """`apt-get install --reinstall docker.io`: Debian does not restart Docker for it, so the job must not notice."""
    job = stage.steady()
    fence, host = stage.fence(), stage.holder()
    configured = "grep -c ' configure docker.io' /var/log/dpkg.log; true"
    before = host.guest.must(configured)
    host.guest.must(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q && apt-get install -q -y --reinstall docker.io",
        timeout_s=900,
    )
    if host.guest.must(configured) == before:
        raise Broken("apt did not install it again")
    stage.await_since(stage.mark(), 10)
    stage.await_checkpoint(len(job.checkpoints()))
    if stage.fence() != fence:
        raise Broken(f"the job moved; {stage.verdict()}")
    return f"{stage.verdict()}, job stayed, a checkpoint after it"


@scenario()
def clock_steps(stage: Stage) -> str:
    """The wall clock steps an hour ahead, then two back, then right again: the job never notices."""
    job = stage.steady()
    fence, host = stage.fence(), stage.holder()
    for hours in ("+1", "-2", "+1"):
        host.guest.must(f'date -s "{hours} hours"')
        stage.await_since(stage.mark(), 10)
    if stage.fence() != fence:
        raise Broken("a step of the clock cost the host its job")
    count = stage.await_checkpoint(len(job.checkpoints()))
    return f"{stage.verdict()}, job stayed, {count} checkpoints"


FULL_S = 180
"""How long the disk stays full: receipts, heartbeats and attempts at checkpoints come meanwhile."""


@scenario()
def disk_full(stage: Stage) -> str:
    """4 MiB are left, root's reserve included: the host keeps its job, says why there are no checkpoints, and has one
    later. What the job says meanwhile Docker itself can't write down, so no step is asked for before there is room.
    """
    job = stage.steady()
    host, fence = stage.holder(), stage.fence()
    stage.look()
    copies = stage.copies()
    host.guest.must("fallocate -l $(($(stat -f -c '%f * %S' /) - 4194304)) /fill; df -m / | tail -1")
    try:
        count = len(job.checkpoints())
        job.wait("the event that tells of it", lambda: _told(job, "disk_full"), MOVE_S)
        time.sleep(FULL_S)
        if len(job.checkpoints()) != count:
            raise Broken("a checkpoint came from a host whose disk is full")
    finally:
        host.guest.must("rm -f /fill")
    stage.await_since(stage.mark(), 10)
    stage.await_checkpoint(count, MOVE_S)
    note = stage.verdict()
    if (stage.fence(), stage.copies()) != (fence, copies):
        raise Broken(f"a full disk cost the host its job; {note}")
    return f"{note}, the same copy, said so, and a checkpoint came after room was made"


def _told(job: BenchJob, word: str) -> bool:
    return any(word in event["kind"] for event in job.history())


@scenario()
def limits(stage: Stage) -> str:
    """Memory, pids and CPU limits are really hit: the kernel holds them, the host lives on."""
    found = []
    eat = "x=x; while :; do x=$x$x; done"
    forks = "( i=0; while [ $i -lt 400 ]; do sleep 600 & i=$((i+1)); done ); exec sleep 600"
    spin = "while :; do :; done"
    for name, script in (("memory", eat), ("pids", forks), ("cpu", spin)):
        before = {host.name: _counted(host, name) for host in stage.hosts}
        job = stage.launch_other(
            f"limit-{name}", ["/bin/sh", "-c", script],
            resources={"cpus": 0.2, "memory": "64MiB", "disk": "1GiB", "pids": 64}, recovery={"max_recoveries": 0},
        )  # fmt: skip
        job.wait("a host", lambda job=job: bool(job.node()), MOVE_S)  # type: ignore[misc]
        host = stage.holder()
        give_up = time.monotonic() + MOVE_S
        while (count := _counted(host, name)) <= before[host.name]:
            if time.monotonic() > give_up:
                raise Broken(f"the limit of {name} was never hit")
            time.sleep(2)
        found.append(f"{name} {count - before[host.name]}")
        stage.end(ok=True)
    return f"held by the kernel: {', '.join(found)} times"


def _counted(host: Host, name: str) -> int:
    """How often the kernel held jobs at this limit: a slice counts for all below it, also for those that are gone."""
    slices = "/sys/fs/cgroup/everlease.slice/everlease-jobs.slice"
    script = {
        "memory": f"grep -h '^oom_kill ' {slices}/memory.events",
        "cpu": f"find {slices} -name cpu.stat -exec grep -h '^nr_throttled' {{}} +",
        "pids": "dmesg | grep -c 'fork rejected by pids' | sed 's/^/max /'",
    }[name]
    return max((int(line.split()[1]) for line in host.guest.run(script).out.splitlines()), default=0)


@scenario()
def packets(stage: Stage) -> str:
    """From inside a job nothing answers but the internet: no host, service, neighbour, metadata, nor the bench."""
    targets = {
        "host ssh by its address": "10.0.2.15 22", "host ssh by the bridge": "172.17.0.1 22",
        "a neighbour": "172.17.0.2 7000", "the machine": f"10.0.2.2 {stage.mirror.port}",
        "metadata": "169.254.169.254 80", "bench network": "10.0.9.15 22", "host by IPv6": "fd00:ec2::1 22",
        "metadata by IPv6": "fd00:ec2::254 80",
    }  # fmt: skip
    script = "".join(
        f'if nc -w 4 {place} </dev/null >/tmp/o 2>&1; then echo "OPEN {name}"; else echo "shut {name}"; fi; '
        for name, place in targets.items()
    )
    job = stage.launch_other("packets", ["/bin/sh", "-c", f"sleep 200; {script} echo done; sleep 600"])

    def printed() -> str:
        return "".join(piece["text"] for piece in job.output())

    job.wait("a host", lambda: bool(job.node()), MOVE_S)
    guest = stage.holder().guest
    image = guest.must(
        'until i=$(docker images -q everlease/image | head -1) && [ -n "$i" ]; do sleep 2; done; echo $i', timeout_s=600
    ).strip()
    guest.must(f"docker run -d --rm --name neighbour {image} /bin/sh -c '{NEIGHBOUR}'")
    try:
        guest.must(SERVICES)
        # A probe that finds everything shut must have had something to find: a container without our rules finds it.
        seen = guest.must(f"docker run --rm {image} /bin/sh -c '{script}'", timeout_s=600)
        seen += "".join(
            f"OPEN {name}\n"
            for name, place in targets.items()
            if ":" in place and not guest.run(_REACH.format(place=place.replace(" ", "/"))).code
        )
        unseen = [name for name in targets if f"OPEN {name}\n" not in seen]
        if unseen:
            raise Broken(f"nobody answers there anyway: {', '.join(unseen)}")
        job.wait("the probes", lambda: "done" in printed(), MOVE_S)
    finally:
        guest.must("docker rm -f neighbour; systemctl stop metadata4 metadata6; true")
    found = [line for line in printed().splitlines() if line.startswith("OPEN")]
    if found or printed().count("shut") != len(targets):
        raise Broken("; ".join(found) or f"not all probes were made: {printed()[-300:]}")
    return f"{len(targets)} targets shut, all open to whom our rules don't bind"


@scenario()
def files_mode(stage: Stage) -> str:
    """`files` mode: /checkpoint goes with the job, which starts again with EVERLEASE_RESUME=1."""
    script = (
        "n=$(cat /checkpoint/n 2>/dev/null || echo 0); echo resumed=$EVERLEASE_RESUME from $n; "
        "while :; do n=$((n+1)); echo $n > /checkpoint/n.part; mv /checkpoint/n.part /checkpoint/n; echo at $n; "
        "sleep 1; done"
    )
    job = stage.launch_other(
        "files", ["/bin/sh", "-c", script],
        checkpoint={"mode": "files", "max_lost_work": "120s", "min_interval": "20s"},
    )  # fmt: skip
    stage.await_checkpoint()
    fence = stage.fence()
    stage.holder().guest.power_cut()

    def resumed() -> bool:
        later = "".join(piece["text"] for piece in job.output() if piece["fence"] > fence)
        return re.search(r"resumed=1 from [1-9]", later) is not None

    took = job.wait("the job's start elsewhere", resumed, MOVE_S)
    return f"resumed on {stage.holder().name} after {took:.0f} s"


@scenario(kinds=("debian12-6.1", "debian12-6.12"))
def kernels(stage: Stage) -> str:
    """6.1 to 6.12 is moved; 6.12 to 6.1 is refused, also as the second move of a job that began on 6.1."""
    job = stage.steady()
    if stage.holder() is not stage.hosts[0]:
        raise Broken("the job did not begin on the older kernel, which asks less")
    fence = stage.fence()
    stage.look()
    job.ask("migrate")
    took = stage.await_moved(fence)
    stage.await_checkpoint(len(job.checkpoints()))
    stage.await_abandoned("older")
    stage.await_since(stage.mark(), 10)
    note = stage.verdict()
    # And a job that never saw the older kernel.
    stage.unit(stage.hosts[0], "stop")
    stage.launch()
    stage.await_checkpoint()
    stage.unit(stage.hosts[0], "start")
    stage.await_connected(stage.hosts[0], FIRST_S)
    stage.await_abandoned("older")
    stage.await_since(stage.mark(), 10)
    stage.verdict()
    return f"{note}, 6.1 to 6.12 in {took:.0f} s; back refused, as second move and as first, and both ran on"


@scenario()
def host_oom(stage: Stage) -> str:
    """The whole host runs out of memory by another program: the kernel takes that one, guards and agent live."""
    stage.steady()
    host, fence = stage.holder(), stage.fence()
    host.guest.must("dmesg -C; systemd-run -q --collect --unit=hog tail /dev/zero")
    victims, give_up = "", time.monotonic() + FIRST_S
    while not victims:
        if time.monotonic() > give_up:
            raise Broken("the kernel ended nobody")
        time.sleep(5)
        with suppress(subprocess.TimeoutExpired):  # a host without memory answers nobody for minutes
            victims = host.guest.run("dmesg | grep -o 'Killed process.*'", timeout_s=60).out
    if any(name in victims for name in ("(python", "(dockerd", "(containerd")):
        raise Broken(f"the kernel took what must live: {victims.strip()}")
    stage.await_connected(host, FIRST_S)
    stage.await_since(stage.mark(), 10)
    stayed = "job stayed" if stage.fence() == fence else "job moved"
    return f"{stage.verdict()}, {victims.split('(')[1].split(')')[0]} was killed, {stayed}"


@scenario()
def without_apparmor(stage: Stage) -> str:
    """A host without AppArmor: a job is restored there in place, and never moved to a host with it."""
    stage.finish()
    host = stage.hosts[0]
    stage.reboot_with(host, "apparmor=0")
    try:
        stage.steady()
        if stage.holder() is not host:
            raise Broken("the job did not begin on the cheaper host")
        host.guest.must("pkill -KILL -x chain")
        stage.await_since(stage.mark(), 10)
        stage.await_abandoned("AppArmor")
        stage.await_since(stage.mark(), 10)
        return f"{stage.verdict()}, restored in place, move refused"
    finally:
        stage.finish()
        stage.reboot_with(host, "")
