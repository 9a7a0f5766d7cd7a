"""Where a scenario plays: two guests of one kind (or of two), their agents in the market, and the witness."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from everlease.cli.errors import CliError
from everlease.cli.outputs import fetch_outputs
from everlease.domain.job import ENDED, JobState
from hosts.guest import Guest, GuestError
from hosts.images import BUILD, Image
from hosts.kinds import Kind
from hosts.market import BenchJob, BenchMarket, HostIdentity, Stuck
from hosts.mirror import Mirror
from hosts.payload import KEPT, Step, parse
from hosts.proof import Witness
from hosts.provider import UNIT, installed, join
from hosts.reference import STEPS, reference

FIRST_S = 900
CONNECT_S = 300
START_S = 420
MOVE_S = 600
"""How long guests may take under emulation: until an agent has made its trial and connects, until one is back, until a
job begins, until it goes on elsewhere."""
IN_ORDER = ("stopped", "left", "migrated")
"""Outcomes of an award that nobody is to blame for."""
LEFT_STEPS = 2000
"""A job that is nearer to its end than this is not taken along into another scenario."""


class Broken(Exception):
    """A promise that a scenario found broken; the message is what the report says."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An instant in a job's life: the fence it had, and its host's boot clock in seconds."""

    fence: int
    boot: float


class Host:
    """A guest with an identity in the market."""

    def __init__(self, guest: Guest, kind: Kind, identity: HostIdentity) -> None:
        self.guest, self.kind, self.identity = guest, kind, identity

    @property
    def name(self) -> str:
        return self.guest.name


def made_since(mark: Mark, fence: int, step: Step) -> bool:
    """Whether a step was made after the mark: under a later fence, or under its own and later by that host's clock."""
    return fence > mark.fence or (fence == mark.fence and step.boot > mark.boot)


class Stage:
    """The hosts of one column of the table, kept booted from one scenario to the next."""

    def __init__(self, market: BenchMarket, mirror: Mirror, kinds: tuple[Kind, Kind]) -> None:
        self.market, self.mirror = market, mirror
        self.witness = Witness(since=time.monotonic())
        self.job: BenchJob | None = None
        self._steady: BenchJob | None = None
        self._told: set[Guest] = set()
        self.hosts = [
            Host(Guest(f"{kind.name}-{letter}", BUILD / "guests" / f"{kind.name}-{letter}"), kind, identity)
            for letter, kind, identity in zip("ab", kinds, (market.identity(1), market.identity(2)), strict=True)
        ]

    def open(self) -> None:
        """Boot what doesn't run, join the market, wait for both agents. Raises GuestError, Stuck."""
        images = [installed(host.kind, self.mirror) for host in self.hosts]
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._open, self.hosts, images))

    def _open(self, host: Host, image: Image) -> None:
        if not host.guest.made_of(image):
            host.guest.create(image)
        fresh = not host.guest.running()
        if fresh:
            host.guest.start(wait=False)
        host.guest.await_ssh()
        if host.guest not in self._told:
            self.mirror.configure(host.guest, host.kind)  # it has another port at each call of the bench
            self._told.add(host.guest)
        if fresh or not self.market.connected(host.identity.node):
            join(host.guest, self.market, host.identity)
        self.await_connected(host, FIRST_S)

    def close(self) -> None:
        """Cut the power of both and delete them."""
        for host in self.hosts:
            host.guest.remove()

    def save_logs(self, folder: Path) -> None:
        """Keep what tells why a scenario failed: the agents' journals, Docker's, the console."""
        folder.mkdir(parents=True, exist_ok=True)
        for host in self.hosts:
            with contextlib.suppress(GuestError, OSError):
                shutil.copy(host.guest.folder / "console", folder / f"{host.name}.console")
                text = host.guest.must(
                    f"journalctl -b -o short-precise -u {UNIT} -u docker --no-pager | tail -2000; docker ps -a; "
                    "systemctl list-units --no-pager 'everlease*'", timeout_s=60
                )  # fmt: skip
                (folder / f"{host.name}.journal").write_text(text, encoding="utf-8")

    def end(self, *, ok: bool) -> None:
        """After a scenario: a job that lives through several of them stays where all went well, any other is cancelled.

        Raises Stuck.
        """
        job, self.job = self.job, None
        if job is not None and not (ok and job is self._steady):
            self._cancel(job)

    def finish(self) -> None:
        """No job is left in the market. Raises Stuck."""
        if self._steady is not None:
            self._cancel(self._steady)

    def _cancel(self, job: BenchJob) -> None:
        self._steady = None if job is self._steady else self._steady
        if job.state() not in ENDED:
            with contextlib.suppress(CliError):  # it may end by itself meanwhile
                job.ask("cancel")
            self._poll("the job's cancellation", lambda: job.state() in ENDED, 60)

    def steady(self) -> BenchJob:
        """The job that lives through scenario after scenario; where there is none, a new one and its checkpoint."""
        if self._steady is not None and self._steady.state() is JobState.RUNNING:
            self.job = self._steady
            if self.last_step() < STEPS - LEFT_STEPS:
                return self.job
        self._steady = self.launch()
        self.await_checkpoint()
        return self._steady

    def launch_other(self, name: str, command: list[str], **changes: object) -> BenchJob:
        """Start a job that is no chain; it is alone on the hosts."""
        self.finish()
        self.job = self.market.launch(name, command, **changes)
        return self.job

    def launch(self, steps: int = STEPS, pause_ms: int = 500, **changes: object) -> BenchJob:
        """Start a chain of its own and wait for its first steps."""
        self.finish()
        self.witness = Witness(since=time.monotonic())
        name = f"chain-{int(time.time()) % 1_000_000}"
        self.job = self.market.launch(name, ["/chain", str(steps), str(pause_ms), KEPT], **changes)
        self.await_steps(0, 3, START_S)
        return self.job

    def steps(self, after_fence: int = 0) -> list[Step]:
        """Steps that the marketplace has seen under fences above ``after_fence``."""
        return [step for fence, step in self._printed() if fence > after_fence]

    def _printed(self) -> Iterator[tuple[int, Step]]:
        """(fence, step) in the order of printing."""
        assert self.job is not None
        text: dict[int, str] = {}
        for piece in self.job.output():
            if piece["stream"] == "stdout":
                text[piece["fence"]] = text.get(piece["fence"], "") + piece["text"]
        for fence in sorted(text):
            yield from ((fence, step) for step in map(parse, text[fence].splitlines()) if step is not None)

    def mark(self) -> Mark:
        """Now, in the job's life. Raises GuestError."""
        return Mark(self.fence(), float(self.holder().guest.must("cat /proc/uptime").split()[0]))

    def await_since(self, mark: Mark, count: int, timeout_s: float = MOVE_S) -> float:
        """Until so many steps were made after the mark, wherever the job runs by then; seconds. Raises Stuck."""
        assert self.job is not None

        def enough() -> bool:
            return sum(made_since(mark, fence, step) for fence, step in self._printed()) >= count

        return self.job.wait(f"{count} steps more", enough, timeout_s)

    def await_steps(self, after_fence: int, count: int, timeout_s: float) -> float:
        """Until so many steps came under a fence above ``after_fence``; seconds."""
        assert self.job is not None

        def enough() -> bool:
            return len(self.steps(after_fence)) >= count

        return self.job.wait(f"{count} steps after fence {after_fence}", enough, timeout_s)

    def await_checkpoint(self, more_than: int = 0, timeout_s: float = START_S) -> int:
        """Until more checkpoints than this were committed; how many there are."""
        assert self.job is not None
        job = self.job
        job.wait("a checkpoint", lambda: len(job.checkpoints()) > more_than, timeout_s)
        return len(job.checkpoints())

    def fence(self) -> int:
        assert self.job is not None
        return int(self.job.row()["fence"])

    def last_step(self) -> int:
        """The highest number that the marketplace has seen."""
        return max((step.number for step in self.steps()), default=0)

    def holder(self) -> Host:
        """The host of the newest award."""
        assert self.job is not None
        node = self.job.node()
        for host in self.hosts:
            if host.identity.node == node:
                return host
        raise Broken(f"the job is at {node}, which is none of this column's hosts")

    def other(self, host: Host) -> Host:
        return next(item for item in self.hosts if item is not host)

    def await_connected(self, host: Host, timeout_s: float = CONNECT_S) -> None:
        """Until the market has a connection of this host's agent. Raises Stuck."""
        self._poll(f"{host.name}'s agent to connect", lambda: self.market.connected(host.identity.node), timeout_s)

    def await_moved(self, fence: int, timeout_s: float = MOVE_S) -> float:
        """Until the job prints new steps under a later fence; seconds."""
        return self.await_steps(fence, 3, timeout_s)

    def go_down(self, host: Host, command: str) -> str:
        """Have the holder go down by this command; how its award ended, where and when the job went on.

        Raises Broken, Stuck, GuestError.
        """
        fence = self.fence()
        self.look()
        host.guest.must(f"{command} --no-block; true")
        took = self.await_moved(fence)
        return f"{self.left_in_order(fence)} for {self.holder().name} in {took:.0f} s"

    def left_in_order(self, fence: int) -> str:
        """How the award under this fence ended. Raises Broken where the host was punished or blamed for its end."""
        assert self.job is not None
        outcome = str(next(award for award in self.job.awards() if award["fence"] == fence)["outcome"])
        if outcome not in IN_ORDER:
            raise Broken(f"an announced stop ended the award as {outcome!r}")
        return outcome

    def await_abandoned(self, word: str) -> float:
        """Until a planned move is given up for a reason with this word in it; seconds. Raises Stuck, Broken."""
        assert self.job is not None
        job, fence = self.job, self.fence()

        def reason() -> str:
            told = [event for event in job.history() if event["kind"] == "job.migrate_abandoned"]
            return str(told[-1]["data"]["reason"]) if len(told) > before else ""

        before = sum(event["kind"] == "job.migrate_abandoned" for event in job.history())
        job.ask("migrate")
        took = job.wait("the move to be refused", lambda: bool(reason()) or self.fence() != fence, MOVE_S)
        if self.fence() != fence:
            raise Broken("the job was moved to a host that must not have it")
        if word not in reason():
            raise Broken(f"the move was given up for another reason: {reason()}")
        return took

    def unit(self, host: Host, verb: str) -> None:
        """systemctl VERB of the agent's unit."""
        host.guest.must(f"systemctl {verb} {UNIT}", timeout_s=400)

    def reboot_with(self, host: Host, append: str) -> None:
        """Boot this host anew with these words for its kernel; its disk stays."""
        host.guest.must("sync")
        host.guest.power_cut()
        self._poll("the market to miss it", lambda: not self.market.connected(host.identity.node), CONNECT_S)
        host.guest.use(installed(host.kind, self.mirror), append=append)
        host.guest.start()
        self.await_connected(host, FIRST_S)

    def look(self) -> None:
        """Let the witness read both guests, as far as they run."""
        for host in self.hosts:
            if host.guest.running():
                self.witness.look(host.guest)

    def copies(self) -> int:
        """How many copies of the job the witness has seen at work."""
        return len(self.witness.runs)

    def verdict(self) -> str:
        """Check all copies; a sentence for the report. Raises Broken."""
        self.look()
        found = [*self.witness.overlaps(), *self.witness.begun_anew(), *self.witness.wrong(reference())]
        if found:
            raise Broken("; ".join(found)[:600])
        runs = self.witness.runs.values()
        error = max((run.error for run in runs), default=0.0)
        return f"{len(runs)} copies, {sum(len(run.steps) for run in runs)} steps exact, clocks ±{error:.2f} s"

    def outputs(self, folder: Path) -> bytes:
        """The job's file out of its last checkpoint."""
        assert self.job is not None
        fetch_outputs(self.market.client, self.job.id, folder)
        return (folder / "upper" / KEPT.lstrip("/")).read_bytes()

    def _poll(self, what: str, done: Callable[[], bool], timeout_s: float) -> None:
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > timeout_s:
                raise Stuck(f"waited {timeout_s:.0f} s for {what}")
            time.sleep(1)
