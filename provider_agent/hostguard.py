"""The host guard: one process per agent that freezes every job's container which nobody guards.

Run as `python3 -I -S hostguard.py STATE` from the versioned copy beside guard.py, kept by the same keepers. It knows
jobs by their cgroups, not by Docker: everything below the jobs slice that holds tasks must belong to a container's
folder whose guard lives and does its work. It spares nothing, a restore in progress has a guard already.
"""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from provider_agent import guard
else:
    # The copy, run as a script: -I leaves its folder out of the path.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import guard

OVERDUE_S = 0.25


class HostGuard:
    """What is known of one agent's containers. `jobs` is the cgroup that holds the outer ones."""

    def __init__(self, state: Path, jobs: Path, version: int) -> None:
        self._state, self._jobs, self._version = state, jobs, version
        self._folders: dict[Path, Path] = {}

    def look(self) -> list[Path]:
        """Freeze what is unguarded; the outer cgroups frozen now."""
        frozen = []
        for outer in self._outers():
            if outer.requested() or not self._holds_tasks(outer):
                continue
            folder = self._folder(outer.path)
            if folder is not None and guard.alive(folder) and not self._overdue(folder):
                continue
            # No lock is taken: a guard that hangs may hold it. A guard that works thaws again what it may.
            with suppress(OSError):
                outer.freeze()
                frozen.append(outer.path)
        return frozen

    def _outers(self) -> list["guard.Freezer"]:
        try:
            names = [entry.path for entry in os.scandir(self._jobs) if entry.is_dir()]
        except OSError:
            return []
        found = [guard.Freezer(Path(name), self._version) for name in names]
        return [freezer for freezer in found if freezer.exists()]

    def _holds_tasks(self, outer: "guard.Freezer") -> bool:
        try:
            return outer.populated()
        except OSError:
            return False

    def _folder(self, outer: Path) -> Path | None:
        """The container's folder; the records are read again when a cgroup is not known yet or its folder is gone."""
        folder = self._folders.get(outer)
        if folder is None or not os.path.isdir(folder):
            self._folders = {}
            for record in (self._state / "containers").glob("*/outer.json"):
                with suppress(OSError, ValueError, KeyError):
                    path = Path(json.loads(record.read_text(encoding="utf-8"))["path"])
                    self._folders[path] = record.parent
            folder = self._folders.get(outer)
        return folder

    def _overdue(self, folder: Path) -> bool:
        """Whether the guard lives but did not do its work: it hangs, or was stopped."""
        return guard.boottime() > guard.read_lease(folder) + OVERDUE_S


def main(state: Path) -> int:
    """Entry point; ends when the state folder is gone or the agent took this host down (no cgroups.json).

    An agent may choose other cgroups while a host guard of before lives: the new ones are watched at once, and those
    of before as well, where containers may be left.
    """
    if guard.take_life(state / "hostguard.lock") is None:
        return guard.ENDED
    guard.settle_in()
    guard.note_pid(state / "hostguard.pid")
    watchers: dict[tuple[str, int], HostGuard] = {}
    while os.path.exists(f"{state}/cgroups.json"):
        with suppress(OSError, ValueError, KeyError):
            raw = json.loads(guard.read(f"{state}/cgroups.json"))
            place = str(raw["jobs"]), int(raw["version"])
            if place not in watchers:
                watchers[place] = HostGuard(state, Path(place[0]), place[1])
        for watcher in watchers.values():
            with suppress(OSError):
                watcher.look()
        time.sleep(guard.TICK_S)
    return guard.ENDED


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
