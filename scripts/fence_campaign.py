"""Kills of agent, guards, host guard, Docker, containerd and shims at random moments: no job runs past its fence.

.venv/bin/python scripts/fence_campaign.py --kills 1000 --seed 1
python scripts/fence_campaign.py --kills 30 --socket /run/docker.sock --state STATE --criu CRIU --even --fence-after 20

With --socket the host's own Docker is hurt, under systemd, whose runtime `everlease` is the wrapper in STATE. Without,
a Docker daemon of its own is started in a network namespace of its own. Ends with a table and
.everlease/fence-campaign.json; exit status 1 when a job ran past its fence, or stayed frozen beside a living agent.
"""

import argparse
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from everlease.image_archive import read_archive
from provider_agent import guards
from provider_agent.runtime import oci
from provider_agent.runtime.container import ContainerEngine
from provider_agent.runtime.daemon import DaemonPaths, HostDocker, connect
from tests.support.fence_campaign import CHEAP, FENCE_AFTER_S, HARD, LIMIT_S, Campaign, named
from tests.support.identity import set_up

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / ".build" / "image.tar"
CHEAP_A_ROUND = 23
REPORT = ROOT / ".everlease" / "fence-campaign.json"


class OwnDaemon:
    """A daemon of the campaign's own."""

    def __init__(self, root: Path, state: Path, wrapper: Path, image: Path) -> None:
        self._netns, self._image, self._state = root.name, image, state
        subprocess.run(["ip", "netns", "add", self._netns], check=True)
        subprocess.run(["ip", "-n", self._netns, "link", "set", "lo", "up"], check=True)
        paths = DaemonPaths(root / "data", root / "run")
        self._docker = HostDocker(paths, wrapper=wrapper, netns=Path("/run/netns") / self._netns)
        self._loaded = False

    def restart(self) -> ContainerEngine:
        self._docker.kill()
        engine = ContainerEngine(self._docker.start(), self._state)
        if not self._loaded:
            engine.images.load(read_archive(self._image))
            self._loaded = True
        return engine

    def pids(self, kind: str) -> list[int]:
        return named(kind, self._docker.processes())

    def close(self) -> None:
        self._docker.purge()
        subprocess.run(["ip", "netns", "del", self._netns], check=True)


class HostDaemon:
    """The host's own, kept by systemd; the runtime `everlease` is registered with it."""

    def __init__(self, socket: Path, state: Path, image: Path) -> None:
        self._socket, self._state, self._archive = socket, state, read_archive(image)

    def restart(self) -> ContainerEngine:
        subprocess.run(["systemctl", "reset-failed", "docker", "containerd"], check=False)
        subprocess.run(["systemctl", "restart", "containerd", "docker"], check=True)
        engine = ContainerEngine(connect(self._socket), self._state)
        if engine.images.find(self._archive.digest) is None:
            engine.images.load(self._archive)
        return engine

    def pids(self, kind: str) -> list[int]:
        return named(kind, list(psutil.process_iter()))

    def close(self) -> None:
        return


def schedule(kills: int, seed: int) -> list[tuple[list[str], list[str]]]:
    """The cheap and the hard kills of each round, which ends with one of the agent; as random as the world is."""
    rounds, choice = [], random.Random(seed)
    while kills > 0:
        cheap = min(CHEAP_A_ROUND, max(kills - 2, 0))
        rounds.append((choice.choices(CHEAP, k=cheap), [HARD[len(rounds) % len(HARD)]]))
        kills -= cheap + 2
    return rounds


def even_schedule(kills: int) -> list[tuple[list[str], list[str]]]:
    """The same for few kills: four a round, so that each target is hit as often as the others."""
    hard = (["dockerd", "shim"], ["containerd", "all"])
    return [([("guard", "host guard")[n // 2 % 2]], hard[n % 2]) for n in range(math.ceil(kills / 4))]


def show(campaign: Campaign, fence_after: float, seconds: float, path: Path) -> bool:
    """Print the table and write the report; whether all went well."""
    tally = campaign.tally
    slowest = max(tally.to_frozen, default=0.0)
    print(f"\n{sum(tally.kills.values())} kills in {tally.rounds} rounds, {seconds:.0f} s, {tally.steps} steps")
    for target, count in sorted(tally.kills.items()):
        print(f"  {target:<12}{count:>6}")
    print(f"latest step: {tally.latest:+.3f} s from the end of its lease of {fence_after} s (limit {LIMIT_S:+} s)")
    median = statistics.median(tally.to_frozen) if tally.to_frozen else 0.0
    print(f"from a guard's death to frozen: median {median * 1000:.1f} ms, longest {slowest * 1000:.1f} ms")
    for sentence in tally.wrong:
        print(f"WRONG {sentence}")
    path.parent.mkdir(exist_ok=True)
    report = {"kills": dict(tally.kills), "rounds": tally.rounds, "steps": tally.steps, "seconds": round(seconds, 1)}
    report |= {"latest_step_s": round(tally.latest, 4), "to_frozen_median_s": round(median, 4)}
    report |= {"to_frozen_longest_s": round(slowest, 4), "wrong": tally.wrong}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return not tally.wrong and slowest <= LIMIT_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--even", action="store_true", help="every target equally often, for few kills")
    parser.add_argument("--containers", type=int, default=8)
    parser.add_argument("--socket", type=Path, help="the host's own Docker instead of one of the campaign's")
    parser.add_argument("--state", type=Path, help="with --socket: the agent's folder whose wrapper Docker runs")
    parser.add_argument("--criu", type=Path, default=ROOT / ".tools" / "criu" / "criu")
    parser.add_argument("--image", type=Path, default=IMAGE)
    parser.add_argument("--fence-after", type=float, default=FENCE_AFTER_S, help="longer on an emulated host; seconds")
    parser.add_argument("--planted", type=float, default=0.0, help="a fault: leases are so much longer than said")
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    root = Path("/tmp") / f"elf-{uuid.uuid4().hex[:6]}"
    state = given.state or root / "state"
    wrapper = oci.install_wrapper(state, runc=Path(shutil.which("runc") or "runc"), criu=given.criu)
    set_up(state)
    own = given.socket is None
    daemon = OwnDaemon(root, state, wrapper, given.image) if own else HostDaemon(given.socket, state, given.image)
    began = time.monotonic()
    campaign = None
    try:
        campaign = Campaign(
            daemon,
            state,
            root,
            read_archive(given.image).digest,
            seed=given.seed,
            containers=given.containers,
            planted=given.planted,
            fence_after=given.fence_after,
        )
        for cheap, hard in even_schedule(given.kills) if given.even else schedule(given.kills, given.seed):
            campaign.round(cheap, hard)
            print(f"round {campaign.tally.rounds}: {sum(campaign.tally.kills.values())} kills, ", end="")
            print(f"{time.monotonic() - began:.0f} s, {len(campaign.tally.wrong)} wrong", flush=True)
    finally:
        if campaign is not None:
            campaign.close()
        guards.end_all(state)
        daemon.close()
        guards.teardown(state)
        shutil.rmtree(root, ignore_errors=True)
    return 0 if show(campaign, given.fence_after, time.monotonic() - began, given.report) else 1


if __name__ == "__main__":
    sys.exit(main())
