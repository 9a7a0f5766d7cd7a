"""The block pipeline: a directory of CRIU images and files becomes blocks and file entries, and back."""

from everlease.store.pipeline.known import BlockRecord, KnownBlocks, load_known, save_known
from everlease.store.pipeline.restore import Restored, restore
from everlease.store.pipeline.snapshot import Snapshot, SnapshotOptions, snapshot
from everlease.store.pipeline.sources import Source, scan

__all__ = [
    "BlockRecord",
    "KnownBlocks",
    "Restored",
    "Snapshot",
    "SnapshotOptions",
    "Source",
    "load_known",
    "restore",
    "save_known",
    "scan",
    "snapshot",
]
