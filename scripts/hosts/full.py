"""The full list, on Debian 12: what a host's owner, its kernel and its neighbours do to it."""

from hosts.payload import REFERENCE
from hosts.registry import scenario
from hosts.stage import MOVE_S, Broken, Stage

NEIGHBOUR = "while :; do echo here | nc -l -p 7000; done"
OPEN = {"host ssh by its address", "host ssh by the bridge", "a neighbour"}
_REACH = "timeout 20 bash -c '</dev/tcp/{place}'"


@scenario()
def docker_restart(stage: Stage) -> str:
    """`systemctl restart docker` kills containers: the job goes on from its checkpoint, and no restart is counted."""
    job = stage.steady()
    reached, restarts = stage.last_step(), job.restarts()
    stage.look()
    stage.holder().guest.must("systemctl restart docker", timeout_s=300)
    stage.await_steps(0, 10, MOVE_S, beyond=reached)
    note = stage.verdict()
    if job.restarts() != restarts:
        raise Broken(f"{job.restarts() - restarts} restarts of the program were counted; {note}")
    return f"{note}, on {stage.holder().name}"


@scenario()
def docker_reinstall(stage: Stage) -> str:
    """`apt-get install --reinstall docker.io`, as an upgrade would."""
    stage.steady()
    reached = stage.last_step()
    stage.look()
    stage.holder().guest.must(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q && apt-get install -q -y --reinstall docker.io",
        timeout_s=900,
    )
    stage.await_steps(0, 10, MOVE_S, beyond=reached)
    return f"{stage.verdict()}, on {stage.holder().name}"


@scenario()
def clock_steps(stage: Stage) -> str:
    """The wall clock steps an hour ahead, then two back, then right again: the job never notices."""
    job = stage.steady()
    fence, host = stage.fence(), stage.holder()
    for hours in ("+1", "-2", "+1"):
        reached = stage.last_step()
        host.guest.must(f'date -s "{hours} hours"')
        stage.await_steps(0, 10, MOVE_S, beyond=reached)
    if stage.fence() != fence:
        raise Broken("a step of the clock cost the host its job")
    count = stage.await_checkpoint(len(job.checkpoints()))
    return f"{stage.verdict()}, job stayed, {count} checkpoints"


@scenario()
def disk_full(stage: Stage) -> str:
    """The disk is full: the job runs on, and checkpoints come again when there is room."""
    job = stage.steady()
    host, reached = stage.holder(), stage.last_step()
    host.guest.must("fallocate -l $(($(df --output=avail -B1 / | tail -1) - 4194304)) /fill; df -m / | tail -1")
    try:
        stage.await_steps(0, 60, MOVE_S, beyond=reached)
    finally:
        host.guest.must("rm -f /fill")
    stage.await_checkpoint(len(job.checkpoints()))
    return f"{stage.verdict()}, a checkpoint after room was made"


@scenario()
def limits(stage: Stage) -> str:
    """Memory, pids and CPU limits are really hit: the kernel holds them, the host lives on."""
    found = []
    eat = "x=x; while :; do x=$x$x; done"
    forks = "i=0; while [ $i -lt 400 ]; do sleep 600 & i=$((i+1)); done; echo started all; sleep 600"
    spin = "while :; do :; done"
    for name, script in (("memory", eat), ("pids", forks), ("cpu", spin)):
        job = stage.launch_other(
            f"limit-{name}", ["/bin/sh", "-c", script],
            resources={"cpus": 0.2, "memory": "64MiB", "disk": "1GiB", "pids": 64}, recovery={"max_recoveries": 0},
        )  # fmt: skip
        job.wait("a host", lambda job=job: bool(job.node()), MOVE_S)  # type: ignore[misc]
        found.append(f"{name}: {_limit(stage, name)}")
        stage.end(ok=True)
    return "; ".join(found)


def _limit(stage: Stage, name: str) -> str:
    """The kernel's own counter of the container that runs on the holder. Raises GuestError."""
    file, wanted = {
        "memory": ("memory.events", "oom_kill [1-9]"),
        "pids": ("pids.events", "max [1-9]"),
        "cpu": ("cpu.stat", "nr_throttled [1-9]"),
    }[name]
    script = (
        f"for i in $(seq 150); do for f in $(find /sys/fs/cgroup -path '*everlease*' -name {file} "
        f"-o -path '*docker-*' -name {file}); do if grep -qE '^{wanted}' $f; then grep -hE '^{wanted}' $f | head -1; "
        "exit 0; fi; done; sleep 1; done; exit 1"
    )
    return stage.holder().guest.must(script, timeout_s=400).strip()


@scenario()
def packets(stage: Stage) -> str:
    """From inside a job nothing answers but the internet: no host, service, neighbour, metadata, nor the bench."""
    targets = {
        "host ssh by its address": "10.0.2.15 22", "host ssh by the bridge": "172.17.0.1 22",
        "a neighbour": "172.17.0.2 7000", "the machine": "10.0.2.2 22", "metadata": "169.254.169.254 80",
        "bench network": "10.0.9.15 22", "host by IPv6 link-local": "fe80::5054:ff:fe12:3456 22",
        "metadata by IPv6": "fd00:ec2::254 80",
    }  # fmt: skip
    script = "".join(
        f'if nc -w 4 {place} </dev/null >/tmp/o 2>&1; then echo "OPEN {name}"; else echo "shut {name}"; fi; '
        for name, place in targets.items()
    )
    job = stage.launch_other("packets", ["/bin/sh", "-c", f"sleep 150; {script} echo done; sleep 600"])

    def printed() -> str:
        return "".join(piece["text"] for piece in job.output())

    job.wait("a host", lambda: bool(job.node()), MOVE_S)
    guest = stage.holder().guest
    guest.must(f"until docker run -d --rm {REFERENCE} /bin/sh -c '{NEIGHBOUR}'; do sleep 1; done", timeout_s=300)
    job.wait("the probes", lambda: "done" in printed(), MOVE_S)
    # What the host itself reaches: a probe that finds everything shut must have had something to find.
    opened = {name for name in OPEN if not guest.run(_REACH.format(place=targets[name].replace(" ", "/"))).code}
    if opened != OPEN:
        raise Broken(f"nobody answers the host itself either: {', '.join(sorted(OPEN - opened))}")
    found = [line for line in printed().splitlines() if line.startswith("OPEN")]
    if found:
        raise Broken("; ".join(found))
    return f"{len(targets)} targets shut, {len(OPEN)} of them open to the host itself"


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
        return any("resumed=1 from" in piece["text"] for piece in job.output() if piece["fence"] > fence)

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
    fence, reached = stage.fence(), stage.last_step()
    job.ask("migrate")
    stage.await_steps(0, 60, MOVE_S, beyond=reached)
    if stage.holder() is not stage.hosts[1] or stage.fence() != fence:
        raise Broken("a job of the newer kernel was moved to the older one")
    return f"{stage.verdict()}, 6.1 to 6.12 in {took:.0f} s, back refused and the job ran on"


@scenario()
def host_oom(stage: Stage) -> str:
    """The whole host runs out of memory by another program: the kernel takes that one, guards and agent live."""
    stage.steady()
    host, fence, reached = stage.holder(), stage.fence(), stage.last_step()
    host.guest.must("dmesg -C; systemd-run -q --unit=hog tail /dev/zero")
    victims = host.guest.must(
        "for i in $(seq 300); do dmesg | grep -o 'Killed process.*' && exit 0; sleep 1; done; exit 1", timeout_s=600
    )
    if any(name in victims for name in ("(python", "(dockerd", "(containerd")):
        raise Broken(f"the kernel took what must live: {victims.strip()}")
    stage.await_steps(0, 10, MOVE_S, beyond=reached)
    stayed = "job stayed" if stage.fence() == fence else "job moved"
    return f"{stage.verdict()}, {victims.split('(')[1].split(')')[0]} was killed, {stayed}"


@scenario()
def without_apparmor(stage: Stage) -> str:
    """A host without AppArmor: a job is restored there in place, and never moved to a host with it."""
    stage.finish()
    host = stage.hosts[0]
    stage.reboot_with(host, "apparmor=0")
    try:
        job = stage.steady()
        if stage.holder() is not host:
            raise Broken("the job did not begin on the cheaper host")
        reached = stage.last_step()
        host.guest.must("pkill -KILL -x chain")
        stage.await_steps(0, 10, MOVE_S, beyond=reached)
        fence, reached = stage.fence(), stage.last_step()
        job.ask("migrate")
        stage.await_steps(0, 60, MOVE_S, beyond=reached)
        if stage.holder() is not host or stage.fence() != fence:
            raise Broken("a job of a host without AppArmor was moved to a host with it")
        return f"{stage.verdict()}, restored in place, move refused"
    finally:
        stage.finish()
        stage.reboot_with(host, "")
