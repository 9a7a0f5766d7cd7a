"""Kills at random moments on one host: no job may run past its fence, and none may stay frozen while it is guarded.

A round starts containers that write the boot clock at each step, kills agent, guards and host guard at random moments,
then something of Docker's or everything at once, then the agent, and waits until every lease is over. The proof comes
from the steps alone: each must lie before the end of the last lease given before it.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from provider_agent import guard, guards
from provider_agent.runtime import oci
from provider_agent.runtime.container import ContainerEngine, ContainerSpec, Limits
from provider_agent.runtime.errors import RuntimeFault

FENCE_AFTER_S = 1.0
LIMIT_S = 0.5
"""A lease, and how far past its end a step may lie: half of what the marketplace waits on top (1 s and 1 %)."""
CHEAP = ("agent", "guard", "guard", "guard", "host guard")
HARD = ("dockerd", "containerd", "shim", "all")
PROGRAM = """
import os, struct, sys, time
busy = len(sys.argv) > 1
out = os.open("/checkpoint/steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True:
    os.write(out, struct.pack("d", time.clock_gettime(time.CLOCK_BOOTTIME)))
    if busy:
        sum(range(20000))
    else:
        time.sleep(0.004)
"""


class Daemon(Protocol):
    """The host's Docker, as the campaign hurts it."""

    def restart(self) -> ContainerEngine:
        """A working engine again, whatever was killed."""

    def pids(self, kind: str) -> list[int]:
        """The processes of "dockerd", "containerd" or "shim"."""


@dataclass
class Tally:
    """What a campaign saw. Seconds; `wrong` names each violation with its round."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    steps: int = 0
    latest: float = -1.0
    to_frozen: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Campaign:
    """Rounds on one host. `state` is the agent's folder, where the wrapper is installed.

    A host that is emulated is given longer leases by `fence_after` (seconds): all other waits grow with it, the limit
    does not.
    """

    def __init__(
        self,
        daemon: Daemon,
        state: Path,
        work: Path,
        image: str,
        *,
        seed: int,
        containers: int = 8,
        planted: float = 0.0,
        fence_after: float = FENCE_AFTER_S,
    ) -> None:
        self._daemon, self._state, self._work, self._image = daemon, state, work, image
        self._random, self._count, self._planted = random.Random(seed), containers, planted
        self._fence_after, self._pace = fence_after, fence_after / FENCE_AFTER_S
        self._engine = daemon.restart()
        self._agent: subprocess.Popen[bytes] | None = None
        self._log = work / "leases"
        self.tally = Tally()

    def round(self, cheap: Sequence[str], hard: Sequence[str]) -> None:
        """Kills of CHEAP one after another, then of HARD, then of the agent, and the end of every lease."""
        self._log.unlink(missing_ok=True)
        self._begin()
        try:
            for target in cheap:
                self._pause(0.02, 0.5)
                self._kill(target)
            self._all_run()
            for target in hard:
                self._pause(0, 0.5)
                self._kill(target)
            self._pause(0, 1.5)
            self._kill("agent")
            self._all_stand_still()
            self._check_steps()
        finally:
            self._end()
        self.tally.rounds += 1

    def close(self) -> None:
        """Leave nothing of the campaign's own running."""
        self._stop_agent()
        self._engine.close()

    # --- the course of a round ---

    def _pause(self, shortest: float, longest: float) -> None:
        time.sleep(self._random.uniform(shortest, longest) * self._pace)

    def _begin(self) -> None:
        self._containers: dict[str, Path] = {}
        for number in range(self._count):
            job = f"0x{uuid.uuid4().hex}{uuid.uuid4().hex}"
            mounted = self._work / "mounted" / str(number)
            shutil.rmtree(mounted, ignore_errors=True)
            command = ("python", "-c", PROGRAM, *(["busy"] if number % 4 == 0 else []))
            limits = Limits(cpus=0.25, memory_bytes=64 << 20, disk_bytes=64 << 20)
            made = self._engine.create(ContainerSpec(job, 1, self._image, limits, command), mounted)
            self._containers[made.id] = mounted
        self._start_agent()
        self._until(lambda: all(guards.alive(self._folder(name)) for name in self._containers), 60 * self._pace)
        for container in self._containers:
            self._start(container)
        self._all_run()

    def _start(self, container: str) -> None:
        """Start it; refused while its lease of a second is over, which the stand-in mends at its next round."""
        for _ in range(20):
            try:
                self._engine.start(container)
                return
            except RuntimeFault as error:
                if not any(known in str(error) for known in ("lease on this job is over", "already in use")):
                    raise
                time.sleep(0.5 * self._pace)
        raise TimeoutError(f"{container[:12]} was never allowed to start")

    def _kill(self, target: str) -> None:
        if target == "agent":
            if self._agent is not None:
                self.tally.kills[target] += 1
            self._stop_agent()
            if self._random.random() < 0.5:
                self._pause(0, 2.5)
        elif target == "guard":
            self._kill_guard()
        elif target == "host guard":
            self._hit(target, [_pid(self._state / "hostguard.pid")])
        else:
            kinds = ("shim", "containerd", "dockerd") if target == "all" else (target,)
            pids = [pid for kind in kinds for pid in self._daemon.pids(kind)]
            if target == "shim" and pids:
                pids = self._random.sample(pids, max(1, len(pids) // 2))
            if target == "all":
                self._stop_agent()
                pids += [_pid(self._state / "hostguard.pid")]
                pids += [_pid(self._folder(name) / "guard.pid") for name in self._containers]
            self._hit(target, pids)
            return
        if self._agent is None and target != "agent":
            self._start_agent()

    def _kill_guard(self) -> None:
        folder = self._folder(self._random.choice(sorted(self._containers)))
        ran = not guards.stands_still(folder)
        if not self._hit("guard", [_pid(folder / "guard.pid")]):
            return
        killed = time.monotonic()
        while ran and not guards.stands_still(folder):
            if time.monotonic() - killed > self._pace:
                # Thawed again before this process looked, if a guard lives by now.
                if not guards.alive(folder):
                    self._wrong(f"{folder.name[:12]} runs without a guard")
                return
            time.sleep(0.0005)
        if ran:
            self.tally.to_frozen.append(time.monotonic() - killed)

    def _all_run(self) -> None:
        """With an agent alive every container runs again soon, whatever was killed before."""
        if self._agent is None:
            self._start_agent()
        for container in self._containers:
            folder = self._folder(container)
            if not self._until(lambda folder=folder: not guards.stands_still(folder), 15 * self._pace):  # type: ignore[misc]
                self._wrong(f"{container[:12]} stays frozen though its agent lives")

    def _all_stand_still(self) -> None:
        time.sleep(self._fence_after + LIMIT_S)
        for container in self._containers:
            outer = guard.outer_of(self._folder(container))
            if outer is not None and outer.exists() and outer.pids() and not outer.frozen():
                self._wrong(f"{container[:12]} is not frozen after its lease")

    def _check_steps(self) -> None:
        leases: dict[str, list[tuple[float, float]]] = {}
        for line in self._log.read_text(encoding="ascii").splitlines():
            words = line.split()
            if len(words) == 3:
                leases.setdefault(words[0], []).append((float(words[1]), float(words[2])))
        for container, mounted in self._containers.items():
            given, steps = leases[container], array("d")
            steps.frombytes((mounted / "steps").read_bytes())
            times = [at for at, _ in given]
            past = [step - given[bisect_right(times, step) - 1][1] for step in steps]
            self.tally.steps += len(past)
            self.tally.latest = max(self.tally.latest, max(past, default=-1.0))
            late = sum(one > LIMIT_S for one in past)
            if late:
                self._wrong(f"{container[:12]} made {late} steps past its fence, the last {max(past):.3f} s")

    def _end(self) -> None:
        self._stop_agent()
        for container in self._containers:
            with suppress(RuntimeFault):
                self._engine.kill(container)
        self._engine.close()
        self._engine = self._daemon.restart()
        for found in self._engine.list():
            self._engine.remove_job(found.job_id)

    # --- the agent's stand-in ---

    def _start_agent(self) -> None:
        argv = [sys.executable, "-m", "tests.support.fence_agent", str(self._state), str(self._log)]
        argv.append(str(self._fence_after))
        argv.append(str(self._planted))
        self._agent = subprocess.Popen(argv, cwd=Path(__file__).parents[2], start_new_session=True)

    def _stop_agent(self) -> None:
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
            self._agent = None

    def _folder(self, container: str) -> Path:
        return oci.container_folder(self._state, container)

    def _hit(self, target: str, pids: Sequence[int]) -> bool:
        """Kill them; a kill counts where there was somebody to kill."""
        hit = sum([_sigkill(pid) for pid in pids])
        self.tally.kills[target] += hit > 0
        return hit > 0

    def _wrong(self, sentence: str) -> None:
        self.tally.wrong.append(f"round {self.tally.rounds}: {sentence}")

    @staticmethod
    def _until(condition: Callable[[], bool], seconds: float) -> bool:
        give_up = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > give_up:
                return False
            time.sleep(0.01)
        return True


def named(kind: str, processes: list[psutil.Process]) -> list[int]:
    """The pids among these of one kind: "dockerd", "containerd" or "shim"."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            name = process.name()
            is_shim = name.startswith("containerd-shim")
            if is_shim if kind == "shim" else name == kind:
                found.append(process.pid)
    return found


def _pid(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _sigkill(pid: int) -> bool:
    if pid <= 1:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
