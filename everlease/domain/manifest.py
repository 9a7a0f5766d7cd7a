"""What a checkpoint's manifest says. Byte format: docs/checkpoint-format.md; encoding: everlease.store.manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

CID = NewType("CID", str)
"""CIDv1 (raw, sha2-256, base32 lower) of a stored block, 59 characters."""

MANIFEST_VERSION = 1
MAX_PAYLOAD_BYTES = 1 << 20
MAX_ENTRIES = 1 << 16
MAX_REFS = 1 << 19
"""Block references of a checkpoint, zeros included: 64 GiB in blocks of 128 KiB."""
MAX_PATH_BYTES = 4096
MAX_DEPTH = 64

EntryKind = Literal["file", "directory", "symlink"]
Layout = Literal["offset", "aligned"]
RuntimeMode = Literal["process", "files"]


class ManifestError(ValueError):
    """A manifest that breaks its own rules; `reason` is one sentence. Not retryable."""

    retryable = False

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BlockRef:
    """One block of a file: `length` bytes of plaintext at `position` (file offset, or virtual address if aligned).

    `cid` is None for a block of zeros; `generation` names the key that sealed it (0 for zeros).
    """

    cid: CID | None
    position: int
    generation: int
    length: int


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file, directory or symlink. `space` names the address space of an aligned file: `pid:<n>` or `shmem:<id>`."""

    path: str
    kind: EntryKind
    size: int = 0
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: str = ""
    layout: Layout = "offset"
    space: str = ""
    blocks: tuple[BlockRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint: which job, under which award, and every block of every file. `created_at` is in unix seconds."""

    chain_id: int
    contract: str
    job_id: str
    seq: int
    fence: int
    epoch: int
    lease_id: str
    node: str
    mode: RuntimeMode
    generation: int
    predecessor: CID | None
    created_at: float
    entries: tuple[FileEntry, ...]
    requirements: Mapping[str, str] = field(default_factory=dict)
    stats: Mapping[str, float] = field(default_factory=dict)
    version: int = MANIFEST_VERSION

    def refs(self) -> Iterator[BlockRef]:
        """Every block reference, file by file, zeros included."""
        for entry in self.entries:
            yield from entry.blocks

    def cids(self) -> frozenset[CID]:
        """The CIDs of all data blocks; the manifest's own is not among them."""
        return frozenset(ref.cid for ref in self.refs() if ref.cid is not None)

    def generations(self) -> frozenset[int]:
        """Key generations a reader needs, the manifest's own included."""
        return frozenset(ref.generation for ref in self.refs() if ref.cid is not None) | {self.generation}

    @property
    def logical_bytes(self) -> int:
        """Bytes of all files before elision and compression."""
        return sum(entry.size for entry in self.entries)


def check_path(path: str) -> None:
    """Raise ManifestError unless `path` is relative and names something strictly below its root."""
    if not path or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise ManifestError(f"path is empty or longer than {MAX_PATH_BYTES} bytes")
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        raise ManifestError(f"a path has {len(parts)} parts, {MAX_DEPTH} are allowed")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ManifestError(f"path {path!r} is not a plain relative path")


def check_manifest(manifest: Manifest) -> None:
    """Raise ManifestError unless the manifest is safe to act on: paths, nesting, sizes, positions and lengths."""
    if manifest.version != MANIFEST_VERSION:
        raise ManifestError(f"manifest version {manifest.version} is not {MANIFEST_VERSION}")
    if manifest.seq < 1 or min(manifest.fence, manifest.epoch, manifest.generation) < 0:
        raise ManifestError("seq starts at 1; fence, epoch and generation are not negative")
    if (manifest.seq == 1) != (manifest.predecessor is None):
        raise ManifestError("the first manifest, and only the first, has no predecessor")
    if len(manifest.entries) > MAX_ENTRIES:
        raise ManifestError(f"more than {MAX_ENTRIES} entries")
    if sum(len(entry.blocks) for entry in manifest.entries) > MAX_REFS:
        raise ManifestError(f"more than {MAX_REFS} block references")
    kinds: dict[str, str] = {}
    for entry in manifest.entries:
        check_path(entry.path)
        if entry.path in kinds:
            raise ManifestError(f"path {entry.path!r} appears twice")
        kinds[entry.path] = entry.kind
        check_entry(entry)
    seen: set[str] = set()
    for path in kinds:
        parent = path.rpartition("/")[0]
        while parent and parent not in seen:
            seen.add(parent)
            if kinds.get(parent, "directory") != "directory":
                raise ManifestError(f"path {path!r} lies below {parent!r}, which is not a directory")
            parent = parent.rpartition("/")[0]


def check_entry(entry: FileEntry) -> None:
    """Raise ManifestError unless blocks add up to `size` and offset positions are contiguous."""
    if entry.mode & ~0o777:
        raise ManifestError(f"mode {entry.mode:o} of {entry.path!r} has more than permission bits")
    if entry.kind == "symlink":
        if not entry.target or "\0" in entry.target or len(entry.target) > MAX_PATH_BYTES:
            raise ManifestError(f"symlink {entry.path!r} has no usable target")
    elif entry.target:
        raise ManifestError(f"{entry.kind} {entry.path!r} has a link target")
    if entry.kind != "file" and (entry.size or entry.blocks):
        raise ManifestError(f"{entry.kind} {entry.path!r} has content")
    offset = 0
    for ref in entry.blocks:
        if not 0 < ref.length <= MAX_PAYLOAD_BYTES:
            raise ManifestError(f"a block of {entry.path!r} is {ref.length} bytes long")
        if entry.layout == "offset" and ref.position != offset:
            raise ManifestError(f"blocks of {entry.path!r} leave a gap at {offset}")
        offset += ref.length
    if offset != entry.size:
        raise ManifestError(f"blocks of {entry.path!r} add up to {offset}, not {entry.size}")


def check_successor(manifest: Manifest, previous: Manifest, previous_cid: CID) -> None:
    """Raise ManifestError unless `manifest` follows `previous` (same job, seq + 1, fence not lower)."""
    same_job = (manifest.chain_id, manifest.contract, manifest.job_id) == (
        previous.chain_id,
        previous.contract,
        previous.job_id,
    )
    if not same_job:
        raise ManifestError("the predecessor belongs to another job")
    if manifest.predecessor != previous_cid or manifest.seq != previous.seq + 1:
        raise ManifestError(f"manifest {manifest.seq} does not follow manifest {previous.seq}")
    if manifest.fence < previous.fence:
        raise ManifestError(f"fence {manifest.fence} is older than the predecessor's {previous.fence}")


def evidence_root(manifest: str | None) -> str:
    """A receipt's ``checkpoint_root``: 0x-hex sha256 of the head manifest's CID in ASCII; zero without a head."""
    return "0x" + (hashlib.sha256(manifest.encode()).hexdigest() if manifest else "00" * 32)
