"""Verification: a whole store against its names, or one checkpoint against its manifest and keys. Also CAR export."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from everlease.domain.manifest import CID
from everlease.durable import fsync_directory
from everlease.store.base import BlockStore, get_block
from everlease.store.car import write_car
from everlease.store.errors import BlockCorrupt, BlockNotFound
from everlease.store.manifest import read_manifest
from everlease.store.sealing import JobKeys


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """`corrupt` and `missing` name blocks; `good` counts the others, `bytes` their stored bytes."""

    good: int
    bytes: int
    corrupt: tuple[CID, ...]
    missing: tuple[CID, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged or absent."""
        return not self.corrupt and not self.missing


def scrub_store(store: BlockStore, *, drop_corrupt: bool = False) -> ScrubReport:
    """Read every block and check it against its CID. Needs no keys.

    With `drop_corrupt` damaged blocks are removed: as long as a probe finds them, hosts that have the content will
    not store it again. Each is read again just before: a walk takes long, and it may have been stored anew meanwhile.
    """
    report = _scrub(store, ((cid, 0, 0) for cid in store.cids()), None)
    return replace(report, corrupt=tuple(_drop(store, report.corrupt))) if drop_corrupt else report


def _drop(store: BlockStore, found: Iterable[CID]) -> Iterator[CID]:
    """Delete those that are damaged still; names them."""
    for cid in found:
        try:
            get_block(store, cid)
        except BlockNotFound:
            continue
        except BlockCorrupt:
            store.delete([cid])
            yield cid


def scrub_checkpoint(store: BlockStore, head: CID, keys: JobKeys) -> ScrubReport:
    """Open every block of the checkpoint `head` and check CID, seal and length.

    Raises ManifestInvalid, BlockCorrupt or BlockNotFound if the manifest itself can't be read.
    """
    manifest = read_manifest(store, head, keys).manifest
    wanted = {ref.cid: (ref.generation, ref.length) for ref in manifest.refs() if ref.cid is not None}
    return _scrub(store, ((cid, *place) for cid, place in wanted.items()), keys)


def export_checkpoint(store: BlockStore, head: CID, keys: JobKeys, target: Path) -> int:
    """Write manifest and blocks, sealed as they are, to a CAR whose root is the manifest; returns its bytes."""
    manifest = read_manifest(store, head, keys).manifest
    temporary = target.with_name(target.name + ".part")
    wanted = [head, *sorted(manifest.cids())]
    try:
        with temporary.open("wb") as file:
            for chunk in write_car(store.get_many(wanted), [head]):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(target.parent)
    return size


def _scrub(store: BlockStore, wanted: Iterable[tuple[CID, int, int]], keys: JobKeys | None) -> ScrubReport:
    """Walk (CID, generation, length); without keys only the CID is checked."""
    good = size = 0
    corrupt: list[CID] = []
    missing: list[CID] = []
    for cid, generation, length in wanted:
        try:
            stored = get_block(store, cid)
            if keys is not None and len(keys.open(cid, generation, stored, length)) != length:
                raise BlockCorrupt(cid, f"it does not hold {length} bytes")
        except BlockNotFound:
            missing.append(cid)
        except BlockCorrupt:
            corrupt.append(cid)
        else:
            good += 1
            size += len(stored)
    return ScrubReport(good, size, tuple(corrupt), tuple(missing))
