"""What process checkpoints are worth on this host: a small container is dumped and restored, as root and as a user.

The verdict is kept in STATE/trial.json for as long as the kernel, its command line and security modules, Docker, runc,
CRIU and the cgroup version stay what they were: a host that was booted anew bids again at once. That nothing works is
not kept: it is tried again. Where root's works and a user's doesn't (a kernel that keeps CAP_SYS_RESOURCE from
us), process checkpoints are offered for root's programs alone, with a note.
"""

import fcntl
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from subprocess import SubprocessError

import psutil
from urllib3.exceptions import HTTPError

from provider_agent import guard, guards, trial_image
from provider_agent.runtime import oci, restore
from provider_agent.runtime.capability import RuntimeCapabilities
from provider_agent.runtime.checkpoint import Checkpointer
from provider_agent.runtime.commands import remove_tree
from provider_agent.runtime.container import FAILURES, ContainerEngine, ContainerSpec, JobContainer, Limits
from provider_agent.runtime.errors import RuntimeFault
from provider_agent.runtime.everlease_runc import replace_file

log = logging.getLogger(__name__)
IMAGE = "everlease/trial"
NOBODY = "65534:65534"
USERS = {"root": None, "another user than root": NOBODY}
MIB = 1 << 20
LEASE_S = 600.0
# A guest on an emulated processor needs half a minute for what takes a second elsewhere.
RUNS_WITHIN_S = 60.0
LETTERS = 3


@dataclass(frozen=True)
class TrialStep:
    """One container of the trial. ``reason`` is one sentence, "" when it went on after its restore; seconds of each."""

    user: str
    reason: str
    dump_s: float = 0.0
    restore_s: float = 0.0


def recalled(caps: RuntimeCapabilities, engine: ContainerEngine) -> tuple[RuntimeCapabilities, bool]:
    """The capabilities with what the last trial on this host showed, and whether these tools have still to be tried:
    what failed may have failed of a full disk or a busy machine.

    With jobs running on this host no trial is made, which would delay their heartbeats: then an earlier one counts, if
    any, though Docker, runc or CRIU are others by now. Without jobs nothing is claimed that these tools have not shown.
    """
    if not caps.process_mode:
        return caps, False
    kept = _recall(engine.state)
    due = kept is None or kept["key"] != _key(caps)
    if kept is not None and (not due or busy(engine)):
        others = bool(kept["other_users"])
        return replace(caps, other_users=others, reason=str(kept["note"])), due or not others
    reason = "no trial of this Docker, runc and CRIU was made yet: one is as soon as there are no jobs on this host"
    return replace(caps, process_mode=False, other_users=False, reason=reason), True


def busy(engine: ContainerEngine) -> bool:
    """Whether containers of jobs run on this host, the trial's own left out."""
    return any(job.status == "running" and job.job_id not in map(job_id, USERS) for job in engine.list())


def tried(caps: RuntimeCapabilities, engine: ContainerEngine, dumper: Checkpointer) -> RuntimeCapabilities:
    """The capabilities with what a trial shows that is made now; it is kept. Blocks as ``attempt`` does."""
    failed = {step.user: step.reason for step in attempt(engine, dumper) if step.reason}
    if "root" in failed:
        # Nor does an earlier verdict, of other tools, count any more.
        (engine.state / "trial.json").unlink(missing_ok=True)
        reason = f"a small container was not dumped and restored ({failed['root']}): only files mode is offered"
        return replace(caps, process_mode=False, other_users=False, reason=reason)
    note = "".join(f"programs run by {user} can't be checkpointed here: {reason}" for user, reason in failed.items())
    kept = {"key": _key(caps), "note": note, "other_users": not failed}
    replace_file(str(engine.state / "trial.json"), json.dumps(kept))
    return replace(caps, other_users=not failed, reason=note)


def attempt(engine: ContainerEngine, dumper: Checkpointer) -> list[TrialStep]:
    """Dump and restore a container of each user, and leave nothing behind. Blocks for seconds. Never raises."""
    with _alone(engine.state):
        try:
            image = _import_image(engine)
        except FAILURES as error:
            return [TrialStep("root", f"Docker does not import an image: {error}")]
        try:
            return [_attempt(engine, dumper, image, name, user) for name, user in USERS.items()]
        finally:
            with suppress(*FAILURES):
                engine.client.images.remove(IMAGE, force=True)


def _attempt(engine: ContainerEngine, dumper: Checkpointer, image: str, name: str, user: str | None) -> TrialStep:
    job = job_id(name)
    work = engine.state / "trial"
    try:
        engine.remove_job(job)
        remove_tree(work)
        spec = ContainerSpec(
            job, 1, image, Limits(1, 64 * MIB, 64 * MIB), (trial_image.PROGRAM,), {}, workdir="/", user=user
        )
        return _there_and_back(engine, dumper, spec, work, name)
    except (RuntimeFault, *FAILURES, HTTPError, SubprocessError, psutil.Error, OSError, ValueError) as error:
        log.warning("the trial of process checkpoints as %s failed: %s", name, error)
        return TrialStep(name, str(error))
    finally:
        with suppress(RuntimeFault, OSError):
            engine.remove_job(job)
        remove_tree(work)


def _there_and_back(
    engine: ContainerEngine, dumper: Checkpointer, spec: ContainerSpec, work: Path, name: str
) -> TrialStep:
    """Start, dump frozen, remove, restore; what is said after that must follow on what was said before it."""
    first = engine.create(spec, work / "checkpoint-1")
    _run(engine, first, restored=False)
    _until_said(engine, first)
    dump = dumper.dump(first.id, work / "dump", stay_frozen=True)
    before = _said(engine, first)
    engine.remove(first.id)
    began = time.monotonic()
    second = restore.prepare(engine, replace(spec, fence=2), dump.path, work / "checkpoint-2")
    _run(engine, second, restored=True)
    restored = time.monotonic() - began
    _until_said(engine, second)
    after = _said(engine, second)
    if not trial_image.follows(before, after):
        raise ValueError(f"after the restore it said {after[:8]!r}, which does not follow on {before[-8:]!r}")
    return TrialStep(name, "", round(dump.total_s, 2), round(restored, 2))


def _run(engine: ContainerEngine, container: JobContainer, *, restored: bool) -> None:
    folder = oci.container_folder(engine.state, container.id)
    guards.extend(folder, guard.boottime() + LEASE_S)
    guards.ensure(folder)
    if restored:
        restore.start(engine, container)
    else:
        engine.start(container.id)


def _said(engine: ContainerEngine, container: JobContainer) -> str:
    return b"".join(line.text for line in engine.logs(container.id)).decode().replace("\n", "")


def _until_said(engine: ContainerEngine, container: JobContainer) -> None:
    give_up = time.monotonic() + RUNS_WITHIN_S
    while len(_said(engine, container)) < LETTERS:
        if time.monotonic() > give_up:
            raise TimeoutError(f"it did not run within {RUNS_WITHIN_S:.0f} s")
        time.sleep(0.25)


def job_id(name: str) -> str:
    """The trial's job of one user: the same on every host and at every try, so that what a killed one left is found."""
    return f"0x{hashlib.sha256(f'everlease trial {name}'.encode()).hexdigest()}"


def _import_image(engine: ContainerEngine) -> str:
    """Docker's id of the image, by which containers are made."""
    engine.client.api.import_image_from_data(trial_image.archive(), repository=IMAGE, tag="latest")
    return str(engine.client.images.get(IMAGE).id)


def _key(caps: RuntimeCapabilities) -> dict[str, object]:
    """What the verdict depends on. A boot changes no more of it than this."""
    lsm = Path("/sys/kernel/security/lsm")
    return asdict(caps) | {
        "build": platform.version(),
        "cmdline": Path("/proc/cmdline").read_text(encoding="utf-8", errors="replace").strip(),
        "lsm": lsm.read_text(encoding="ascii").strip() if lsm.exists() else "",
    }


def _recall(state: Path) -> dict[str, object] | None:
    try:
        kept = json.loads((state / "trial.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and kept.keys() == {"key", "note", "other_users"} else None


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """One trial at a time: an agent that starts waits for `everlease provider doctor`, and the other way round."""
    handle = os.open(state / "trial.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
