"""Files that an installation writes, and the record by which each of them goes back to what it was.

FOLDER/installed.json   {"files": [{"path", "before", "mode", "ours", …}], "folders": [path]}, the newest last
FOLDER/before/N         the bytes of a file that was there before

The record is on disk before a file changes: whatever a crash leaves, `undo` finds its way back. A symlink stays one:
what it points to is written.
"""

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from everlease.durable import fsync_directory


@dataclass
class Entry:
    """``before``: the kept copy's name, None when there was no file; ``ours``: sha256 of all that we wrote.

    ``shared``: we wrote only our part of a file that belongs to others; ``changed``: they changed theirs between two of
    our writes, so that neither ``before`` nor anything we wrote is what they want.
    """

    path: str
    before: str | None
    mode: int
    ours: list[str]
    shared: bool = False
    changed: bool = False


@dataclass
class Record:
    """What was changed on this host. ``folders`` were made by us, parents first."""

    folder: Path
    files: list[Entry] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """The record of an earlier run, or an empty one."""
        try:
            raw: dict[str, Any] = json.loads((folder / "installed.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(folder)
        return cls(folder, [Entry(**entry) for entry in raw["files"]], list(raw["folders"]))

    @property
    def exists(self) -> bool:
        return (self.folder / "installed.json").exists()

    def entry(self, path: Path) -> Entry | None:
        """The entry of one file, None when it was never written."""
        return next((entry for entry in self.files if entry.path == str(path)), None)

    def before(self, entry: Entry) -> bytes | None:
        """What the file held before the first installation; None: there was none."""
        return (self.folder / "before" / entry.before).read_bytes() if entry.before is not None else None

    def write(self, path: Path, content: str | bytes, mode: int, *, shared: bool = False) -> bool:
        """Write one file, atomically; whether that changed anything. ``shared``: see Entry. Raises OSError."""
        data = content.encode() if isinstance(content, str) else content
        digest, known = hashlib.sha256(data).hexdigest(), self.entry(path)
        current = path.read_bytes() if path.is_file() else None
        if known is None:
            known = self._note(path, current)
        elif current == data and digest in known.ours and path.stat().st_mode & 0o7777 == mode:
            return False
        elif not self._as_we_know(known, current) or (current is None and known.before is not None):
            known.changed = True
        known.shared = shared
        if digest not in known.ours:
            known.ours.append(digest)
        self._make_folder(_behind(path).parent)
        self._save()
        replace(path, data, mode)
        return current != data

    def undo(self, entry: Entry) -> bool:
        """Put one file back as it was; False when somebody else has changed it since: it is left alone.

        A file that is gone, or was never written because the installation was killed, counts as put back. A shared
        file is put back only when nobody else ever changed it after our first write.
        """
        path = Path(entry.path)
        before = self.before(entry)
        current = path.read_bytes() if path.is_file() else None
        if not self._as_we_know(entry, current) or (entry.shared and entry.changed and current not in (None, before)):
            return False
        if before is None:
            _behind(path).unlink(missing_ok=True)
        elif current is not None and current != before:
            replace(path, before, entry.mode)
        self.drop(entry)
        return True

    def drop(self, entry: Entry) -> None:
        """Forget a file: it is no longer ours."""
        self.files.remove(entry)
        self._save()

    def close(self) -> None:
        """Remove our folders where they are empty, and the record when no file is left in it."""
        if not self.files:
            shutil.rmtree(self.folder / "before", ignore_errors=True)
            (self.folder / "installed.json").unlink(missing_ok=True)
        for folder in reversed(self.folders):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()

    def _as_we_know(self, entry: Entry, current: bytes | None) -> bool:
        """Whether a file is gone, as it was before us, or as we wrote it."""
        return current is None or current == self.before(entry) or hashlib.sha256(current).hexdigest() in entry.ours

    def _note(self, path: Path, current: bytes | None) -> Entry:
        kept = None
        if current is not None:
            kept = str(len(self.files))
            self._make_folder(self.folder / "before")
            replace(self.folder / "before" / kept, current, 0o600)
        mode = path.stat().st_mode & 0o7777 if current is not None else 0
        entry = Entry(str(path), kept, mode, [])
        self.files.append(entry)
        return entry

    def _make_folder(self, folder: Path) -> None:
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        fresh = [str(part) for part in reversed(missing) if str(part) not in self.folders]
        if fresh:
            self.folders += fresh
            private = any(part == self.folder for part in (folder, *folder.parents))
            for part in fresh:
                Path(part).mkdir(mode=0o700 if private else 0o755)

    def _save(self) -> None:
        self._make_folder(self.folder)
        document = {"files": [asdict(entry) for entry in self.files], "folders": self.folders}
        replace(self.folder / "installed.json", json.dumps(document, indent=1).encode(), 0o600)


def replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that a reader and a power cut see the old content or the new; a symlink stays one."""
    path = _behind(path)
    part = path.with_name(f".{path.name}.everlease")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())
    part.replace(path)
    fsync_directory(path.parent)


def _behind(path: Path) -> Path:
    """The file that a symlink to a file points to, or would; a mask of systemd's (to /dev/null) is no such symlink."""
    return path.resolve() if path.is_symlink() and (path.is_file() or not path.exists()) else path
