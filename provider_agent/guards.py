"""The agent's side of the guards: arm a container before it starts, notice a dead guard, tell the lease, take down.

Everything takes the container's folder (runtime/oci.py); the agent's state folder is two levels above.
"""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from provider_agent import cgroups, guard, keeper
from provider_agent.guard import Freezer, outer_of
from provider_agent.runtime.errors import ContainerFault
from provider_agent.runtime.everlease_runc import replace_file

START_TIMEOUT_S = 60.0
"""A second elsewhere; on a host that is busy, or whose processor is emulated, half a minute was seen."""
KILL_S = 2.0
alive, fence_lock = guard.alive, guard.fence_lock


def prepare(folder: Path, name: str) -> None:
    """Note the outer cgroup of this name (cgroups.make_outer) for whoever guards. Call it before `docker start`."""
    found = cgroups.layout_of(_state(folder)).outer(name)
    record = {"path": str(found.path), "version": found.version, "name": name}
    replace_file(str(folder / "outer.json"), json.dumps(record))


def outer(folder: Path) -> Freezer:
    """The outer cgroup of a container. Raises ContainerFault when there is none (any more)."""
    found = outer_of(folder)
    if found is None or not found.exists():
        raise ContainerFault("guard", folder.name[:12], "its cgroup is gone", retryable=False)
    return found


def ensure(folder: Path) -> bool:
    """See that a guard lives, and the host's; returns whether this container's had to be started.

    Call it before `docker start` and then at every heartbeat. Write the lease first: a guard without one freezes at
    once. Raises ContainerFault when no guard comes up.
    """
    state = _state(folder)
    layout, kept = cgroups.layout_of(state), keeper.keeper_of(state)
    if not guard.lives(state / "hostguard.lock"):
        keeper.write_env(state, layout, "hostguard.py", None)
        kept.start(keeper.HOST, state)
        _await_life(state / "hostguard.lock", keeper.HOST)
    if alive(folder):
        return False
    keeper.write_env(folder, layout, "guard.py", outer(folder))
    kept.start(folder.name, folder)
    _await_life(folder / "guard.lock", folder.name)
    return True


def guarded(folder: Path) -> bool:
    """Whether this container's guard lives, and the host's."""
    return alive(folder) and guard.lives(_state(folder) / "hostguard.lock")


def fenced(folder: Path) -> bool:
    """Whether the guard froze this container and nobody released it since."""
    return (folder / "fenced").exists()


def stands_still(folder: Path) -> bool:
    """Whether the outer cgroup is frozen or being frozen, for whatever reason."""
    found = outer_of(folder)
    try:
        return found is not None and found.requested()
    except OSError:
        return False


def extend(folder: Path, deadline: float) -> None:
    """Move the deadline (CLOCK_BOOTTIME seconds) after an acknowledged heartbeat; does not thaw what is fenced."""
    guard.write_lease(folder, deadline)


def thaw(folder: Path, deadline: float) -> None:
    """Let a fenced or held container run again until `deadline`. Raises ContainerFault when it is gone."""
    found = outer(folder)
    try:
        guard.release(folder, found, deadline)
    except OSError as error:
        raise ContainerFault("thaw", folder.name[:12], str(error)) from error


def freeze(folder: Path, *, timeout: float = 10.0) -> None:
    """Hold a container now (for a drain or an order of the gateway) and wait until every task has stopped."""
    found = outer(folder)
    try:
        with fence_lock(folder):
            found.freeze()
            guard.note(folder / "held", "")
        wait_frozen(found, folder, timeout)
    except OSError as error:
        raise ContainerFault("freeze", folder.name[:12], str(error), retryable=True) from error


def wait_frozen(freezer: Freezer, folder: Path, timeout: float = 10.0) -> None:
    """Until every task of the cgroup has stopped. Raises ContainerFault."""
    give_up = time.monotonic() + timeout
    while not freezer.frozen():
        if time.monotonic() > give_up:
            raise ContainerFault("freeze", folder.name[:12], "its tasks did not stop in time", retryable=True)
        time.sleep(0.002)


def kill(folder: Path) -> bool:
    """SIGKILL every task of a container, frozen ones too: they die when thawed without running another instruction.

    Returns whether none is left.
    """
    found = outer_of(folder)
    if found is None or not found.exists():
        return True
    # The lock keeps the guard from freezing them again before they are dead.
    with suppress(OSError), fence_lock(folder):
        give_up = time.monotonic() + KILL_S
        while found.pids() and time.monotonic() < give_up:
            # Listed only once all stand still: a task that forks meanwhile would leave a child that runs.
            found.freeze()
            while not found.frozen() and time.monotonic() < give_up:
                time.sleep(0.002)
            for pid in found.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for freezer in (found, guard.find_freezer(folder)):
                if freezer is not None and freezer.exists():
                    freezer.thaw()
            time.sleep(0.01)
    with suppress(OSError):
        return not found.exists() or not found.pids()
    return False


def forget(folder: Path) -> None:
    """End the guard of a container that is removed, and remove its outer cgroup; again is fine."""
    state = _state(folder)
    if not cgroups.is_set_up(state):
        return
    keeper.keeper_of(state).stop(folder.name)
    name = _name(folder)
    if name is not None:
        cgroups.remove_outer(cgroups.layout_of(state), name)


def sharing(state: Path, name: str) -> tuple[str, ...]:
    """The containers, there or not, whose folders name this outer cgroup."""
    folders = (path.parent for path in (state / "containers").glob("*/outer.json"))
    return tuple(folder.name for folder in folders if _name(folder) == name)


def sweep(state: Path) -> None:
    """Remove the outer cgroups that no container's folder names and that hold no tasks (after a power cut)."""
    layout = cgroups.layout_of(state)
    named = {_name(path.parent) for path in (state / "containers").glob("*/outer.json")}
    for name, found in cgroups.outers(layout).items():
        if name not in named and not found.pids():
            cgroups.remove_outer(layout, name)


def end_all(state: Path) -> None:
    """End every guard of this agent for good, as a power cut would; its containers are no longer fenced by anyone."""
    if cgroups.is_set_up(state):
        keeper.keeper_of(state).stop_all()


def teardown(state: Path) -> None:
    """End every guard of this agent and leave no cgroup and no mount behind; its containers are gone by now."""
    end_all(state)
    if not cgroups.is_set_up(state):
        return
    layout = cgroups.layout_of(state)
    try:
        cgroups.dismantle(layout)
    finally:
        (state / "cgroups.json").unlink(missing_ok=True)


def _state(folder: Path) -> Path:
    return folder.parent.parent


def _name(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "outer.json").read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError):
        return None


def _await_life(lock: Path, name: str) -> None:
    give_up = time.monotonic() + START_TIMEOUT_S
    while not guard.lives(lock):
        if time.monotonic() > give_up:
            raise ContainerFault("guard", name[:12], "the guard process did not start", retryable=True)
        time.sleep(0.005)
