"""What goes into a checkpoint, and where each file is cut into blocks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from everlease.domain.manifest import EntryKind, FileEntry, Layout
from everlease.store.errors import SourceChanged
from everlease.store.pagemap import MAX_PAGEMAP_BYTES, Pagemap, PagemapError, aligned_blocks, parse_pagemap, space_of

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Source:
    """One item of a checkpoint. `path` is its name there; `origin` is where the bytes are.

    With `root`, `origin` is relative to it and opened part by part without following symlinks: a job may change its own
    directory while the agent reads it.
    """

    path: str
    origin: Path | bytes = b""
    root: Path | None = None
    kind: EntryKind = "file"
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: str = ""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A source, its size in bytes, and the (position, length) of each block in file order."""

    source: Source
    size: int = 0
    layout: Layout = "offset"
    space: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)

    def entry(self) -> FileEntry:
        """The manifest entry, without its blocks."""
        item = self.source
        return FileEntry(
            path=item.path,
            kind=item.kind,
            size=self.size,
            mode=item.mode & 0o777,
            uid=item.uid,
            gid=item.gid,
            mtime_ns=item.mtime_ns,
            target=item.target,
            layout=self.layout,
            space=self.space,
        )


def scan(root: Path, prefix: str = "") -> tuple[list[Source], list[str]]:
    """All files, directories and symlinks below `root` as sources under `prefix`, and the paths of what was left out.

    Devices, sockets and FIFOs are left out. Symlinks are recorded, never followed.
    """
    sources: list[Source] = []
    skipped: list[str] = []
    for directory, names, files, descriptor in os.fwalk(root, follow_symlinks=False):
        relative = PurePosixPath(directory).relative_to(root)
        for name in sorted([*names, *files]):
            item = relative / name
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                target = os.readlink(name, dir_fd=descriptor) if stat.S_ISLNK(status.st_mode) else ""
            except FileNotFoundError:
                continue
            kind = _kind(status.st_mode)
            path = str(PurePosixPath(prefix) / item)
            if kind is None:
                skipped.append(path)
                continue
            sources.append(
                Source(
                    path=path,
                    origin=Path(item),
                    root=root,
                    kind=kind,
                    mode=stat.S_IMODE(status.st_mode),
                    uid=status.st_uid,
                    gid=status.st_gid,
                    mtime_ns=status.st_mtime_ns,
                    target=target,
                )
            )
    return sources, skipped


def plan(sources: Sequence[Source], block_bytes: int) -> list[PlannedFile]:
    """Sizes and cuts of all sources: pages files by virtual address, the rest by offset. Raises SourceChanged."""
    sizes = {item.path: _size(item) for item in sources if item.kind == "file"}
    aligned = _aligned_files(sources, sizes)
    planned: list[PlannedFile] = []
    for item in sorted(sources, key=lambda source: source.path):
        if item.kind != "file":
            planned.append(PlannedFile(item))
        elif item.path in aligned:
            space, pagemap = aligned[item.path]
            spans = list(aligned_blocks(pagemap.runs, block_bytes))
            planned.append(PlannedFile(item, sizes[item.path], "aligned", space, spans))
        else:
            size = sizes[item.path]
            spans = [(offset, min(block_bytes, size - offset)) for offset in range(0, size, block_bytes)]
            planned.append(PlannedFile(item, size, spans=spans))
    return planned


@contextmanager
def open_source(source: Source) -> Iterator[int]:
    """A descriptor of a regular file. Raises SourceChanged if it is gone or no longer one."""
    if isinstance(source.origin, bytes):
        raise TypeError("a source held in memory has no descriptor")
    try:
        descriptor = _open_beneath(source.root, source.origin)
    except OSError as error:
        raise SourceChanged(source.path) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceChanged(source.path)
        yield descriptor
    finally:
        os.close(descriptor)


def _open_beneath(root: Path | None, origin: Path) -> int:
    if root is None:
        return os.open(origin, _READ_FLAGS)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part, flags in [*((name, _DIRECTORY_FLAGS) for name in origin.parts[:-1]), (origin.name, _READ_FLAGS)]:
        try:
            opened = os.open(part, flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = opened
    return descriptor


def _size(source: Source) -> int:
    if isinstance(source.origin, bytes):
        return len(source.origin)
    with open_source(source) as descriptor:
        return os.fstat(descriptor).st_size


def _aligned_files(sources: Sequence[Source], sizes: Mapping[str, int]) -> dict[str, tuple[str, Pagemap]]:
    """pages file → (space, pagemap), where exactly one readable pagemap names it and their sizes agree."""
    found: dict[str, tuple[str, Pagemap]] = {}
    claimed: set[str] = set()
    for item in sources:
        directory, _, name = item.path.rpartition("/")
        space = space_of(name)
        if space is None or sizes.get(item.path, MAX_PAGEMAP_BYTES + 1) > MAX_PAGEMAP_BYTES:
            continue
        try:
            pagemap = parse_pagemap(_read_all(item))
        except PagemapError:
            continue
        pages = f"{directory}/pages-{pagemap.pages_id}.img".lstrip("/")
        if pages in claimed:
            found.pop(pages, None)
        elif sizes.get(pages) == pagemap.size:
            found[pages] = (space, pagemap)
        claimed.add(pages)
    return found


def _read_all(source: Source) -> bytes:
    if isinstance(source.origin, bytes):
        return source.origin
    with open_source(source) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read(MAX_PAGEMAP_BYTES + 1)


def _kind(mode: int) -> EntryKind | None:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else None
