"""The project's own test programs, run inside a guest on its systemd, kernel and Docker."""

import json
import subprocess
from pathlib import Path
from typing import Any

from hosts.guest import Done
from hosts.images import ROOT
from hosts.registry import scenario
from hosts.stage import Broken, Host, Stage

STATE = "/var/lib/everlease/runtime"
TOOLS = "/root/tools"
FENCE_S = 30
KILLS = 35
LEAST_KILLS = 4
TARGETS = ("agent", "guard", "host guard", "dockerd", "containerd", "shim", "all")


@scenario(core=True)
def identity(stage: Stage) -> str:
    """A restored job is what it was: namespaces, cgroup, mounts, limits, rights, masks and devices, for two users."""
    shown = _alone(stage, "python -m tests.support.identity --image image.tar --socket /run/docker.sock", 1800).out
    verdicts = [line for line in shown.splitlines() if line.startswith("user ")]
    if len(verdicts) != 2 or not all(line.endswith("no difference") for line in verdicts):
        raise Broken("; ".join(verdicts) or shown[-600:])
    return "no difference after two restores, as root and as 1000:1000"


@scenario()
def fence_kills(stage: Stage) -> str:
    """Agent, guard, host guard, Docker, containerd and shims are killed: no job runs past its fence."""
    words = f"--kills {KILLS} --even --containers 2 --fence-after {FENCE_S} --image image.tar --report /root/fence.json"
    host = stage.hosts[0].guest
    host.must("rm -f /root/fence.json")
    done = _alone(stage, f"python scripts/fence_campaign.py {words} --socket /run/docker.sock", 5400)
    if host.run("test -s /root/fence.json").code:
        raise Broken(f"the campaign did not come to its end: {done.out[-600:]}")
    return judged(json.loads(host.must("cat /root/fence.json")))


def judged(report: dict[str, Any]) -> str:
    """A campaign's report in a sentence. Raises Broken for a violation, and where too little was tried to tell."""
    if report["wrong"]:
        raise Broken("; ".join(report["wrong"])[:600])
    seldom = [target for target in TARGETS if report["kills"].get(target, 0) < LEAST_KILLS]
    if seldom or not report["steps"]:
        raise Broken(f"killed less than {LEAST_KILLS} times: {', '.join(seldom)}; {report['steps']} steps")
    return (
        f"{sum(report['kills'].values())} kills, {report['steps']} steps, the latest {-report['latest_step_s']:.2f} s "
        f"before its fence, frozen {report['to_frozen_longest_s']:.2f} s after a guard's death at the latest"
    )


def _alone(stage: Stage, command: str, timeout_s: float) -> Done:
    """Run a program of tests/ or scripts/ in the first guest, with no job there and its agent stopped."""
    stage.finish()
    host = stage.hosts[0]
    _bring(host)
    stage.unit(host, "stop")
    try:
        bundled = "from provider_agent.installation.criu import bundled; print(bundled())"
        criu = f"--criu $(/opt/everlease/bin/python -c '{bundled}')"
        script = f"cd {TOOLS} && PATH=/opt/everlease/bin:$PATH PYTHONPATH=. {command} --state {STATE} {criu} 2>&1"
        return host.guest.run(script, timeout_s=timeout_s)
    finally:
        stage.unit(host, "start")
        stage.await_connected(host)


def _bring(host: Host) -> None:
    """Copy what is run, and the image of the project's tests."""
    names = ["tests/support", "scripts/fence_campaign.py"]
    pack = subprocess.run(["tar", "-C", str(ROOT), "-cz", *names], capture_output=True, check=True).stdout
    host.guest.must(f"mkdir -p {TOOLS} && tar -C {TOOLS} -xzf -", stdin=pack)
    if host.guest.run(f"test -s {TOOLS}/image.tar").code:
        host.guest.must(f"gunzip > {TOOLS}/image.tar", stdin=_compressed(ROOT / ".build" / "image.tar"), timeout_s=600)


def _compressed(path: Path) -> bytes:
    return subprocess.run(["gzip", "-1c", str(path)], capture_output=True, check=True).stdout
