"""Files into blocks: read, skip zeros and known blocks, seal, upload; in bounded memory on a few threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from threading import Event
from typing import NamedTuple

from everlease.domain.manifest import CID, MAX_PAYLOAD_BYTES, BlockRef, FileEntry
from everlease.store.base import BlockStore
from everlease.store.cid import cid_of
from everlease.store.errors import Cancelled, SourceChanged, StoreError, UnsupportedSource
from everlease.store.pagemap import PAGE_BYTES
from everlease.store.pipeline.known import BlockRecord, KnownBlocks
from everlease.store.pipeline.sources import PlannedFile, Source, open_source, plan
from everlease.store.sealing import JobKeys

_UNIT_BYTES = 2 << 20
_UPLOADS_IN_FLIGHT = 3
_RESEAL_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """Bytes per block (a power of two, 4 KiB to 1 MiB), threads that hash and seal, bytes per upload."""

    block_bytes: int = 128 << 10
    workers: int = 2
    batch_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        size = self.block_bytes
        if size & (size - 1) or not PAGE_BYTES <= size <= MAX_PAYLOAD_BYTES or self.workers < 1:
            raise ValueError("block_bytes is a power of two from 4 KiB to 1 MiB, workers at least 1")


@dataclass(frozen=True, slots=True)
class SnapshotStats:
    """Bytes. logical = zero + known + fresh (plaintext); `new_bytes` is what was stored for the fresh ones."""

    logical_bytes: int
    zero_bytes: int
    known_bytes: int
    new_bytes: int
    new_blocks: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a manifest is made of. Keep `known` for the next snapshot of this job on this host."""

    entries: tuple[FileEntry, ...]
    known: dict[bytes, BlockRecord]
    stats: SnapshotStats


class _Span(NamedTuple):
    file: int
    number: int
    offset: int
    length: int


class _Block(NamedTuple):
    span: _Span
    fingerprint: bytes | None
    cid: CID | None
    stored: bytes


def snapshot(
    sources: Sequence[Source],
    store: BlockStore,
    keys: JobKeys,
    *,
    known: KnownBlocks | None = None,
    options: SnapshotOptions | None = None,
    cancel: Event | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Snapshot:
    """Store every block of `sources` that is not stored yet and return the entries that name them all.

    `known` is only a hint: each reused block is probed for, and stored again if the store lost it. `progress` gets the
    logical bytes done so far. Raises SourceChanged, StoreError, or Cancelled soon after `cancel` is set.
    """
    options = options or SnapshotOptions()
    files = plan(sources, options.block_bytes)
    if len({file.source.path for file in files}) != len(files):
        raise UnsupportedSource("two sources have the same path in the checkpoint")
    run = _Run(files, store, keys, dict(known or {}), options, cancel or Event(), progress)
    return run.execute()


class _Run:
    """One snapshot: the tables that its threads fill."""

    def __init__(
        self,
        files: list[PlannedFile],
        store: BlockStore,
        keys: JobKeys,
        known: dict[bytes, BlockRecord],
        options: SnapshotOptions,
        cancel: Event,
        progress: Callable[[int], None],
    ) -> None:
        self._files = files
        self._store = store
        self._keys = keys
        self._known = {key: record for key, record in known.items() if record.generation in keys.keys}
        self._options = options
        self._cancel = cancel
        self._progress = progress
        self._prints: list[list[bytes | None]] = [[None] * len(file.spans) for file in files]
        self._claims: dict[bytes, _Span] = {}
        self._fresh: dict[bytes, BlockRecord] = {}
        self._new_bytes = 0
        self._done = 0

    def execute(self) -> Snapshot:
        self._store_spans(list(self._all_spans()))
        for _ in range(_RESEAL_ROUNDS):
            lost = self._lost_spans()
            if not lost:
                return self._result()
            self._store_spans(lost)
        raise StoreError("the store keeps losing blocks it was just given; check its disk and its gc")

    def _all_spans(self) -> Iterator[_Span]:
        for number, file in enumerate(self._files):
            offset = 0
            for index, (_, length) in enumerate(file.spans):
                yield _Span(number, index, offset, length)
                offset += length

    def _store_spans(self, spans: list[_Span]) -> None:
        """Run spans through the workers, in order and with a bounded number of units and uploads in flight."""
        with ThreadPoolExecutor(self._options.workers) as workers, ThreadPoolExecutor(_UPLOADS_IN_FLIGHT) as uploaders:
            pending: deque[Future[list[_Block]]] = deque()
            uploads: deque[Future[None]] = deque()
            batch: list[tuple[CID, bytes]] = []
            batch_bytes = 0
            try:
                for unit in _units(spans):
                    pending.append(workers.submit(self._process, unit))
                    while len(pending) > 2 * self._options.workers:
                        batch_bytes += self._collect(pending.popleft().result(), batch)
                    if batch_bytes >= self._options.batch_bytes:
                        self._upload(uploaders, uploads, batch)
                        batch, batch_bytes = [], 0
                while pending:
                    self._collect(pending.popleft().result(), batch)
                self._upload(uploaders, uploads, batch)
                for upload in uploads:
                    upload.result()
            except BaseException:
                for unit_result in pending:
                    unit_result.cancel()
                for upload in uploads:
                    upload.cancel()
                raise

    def _process(self, unit: list[_Span]) -> list[_Block]:
        if self._cancel.is_set():
            raise Cancelled("the snapshot was cancelled")
        source = self._files[unit[0].file].source
        blocks: list[_Block] = []
        with nullcontext(-1) if isinstance(source.origin, bytes) else open_source(source) as descriptor:
            for span in unit:
                if isinstance(source.origin, bytes):
                    data = source.origin[span.offset : span.offset + span.length]
                else:
                    data = os.pread(descriptor, span.length, span.offset)
                if len(data) != span.length:
                    raise SourceChanged(source.path)
                blocks.append(self._seal(span, data))
        return blocks

    def _seal(self, span: _Span, data: bytes) -> _Block:
        if data[0] == 0 and data[-1] == 0 and data == bytes(span.length):
            return _Block(span, None, None, b"")
        fingerprint = self._keys.fingerprint(data)
        # setdefault is atomic: of two equal blocks in one snapshot exactly one is sealed.
        if fingerprint in self._known or self._claims.setdefault(fingerprint, span) != span:
            return _Block(span, fingerprint, None, b"")
        stored = self._keys.seal(data)
        return _Block(span, fingerprint, cid_of(stored), stored)

    def _collect(self, blocks: list[_Block], batch: list[tuple[CID, bytes]]) -> int:
        size = 0
        for span, fingerprint, cid, stored in blocks:
            self._prints[span.file][span.number] = fingerprint
            self._done += span.length
            if cid is not None and fingerprint is not None:
                self._fresh[fingerprint] = BlockRecord(cid, self._keys.generation, span.length)
                batch.append((cid, stored))
                size += len(stored)
        self._new_bytes += size
        self._progress(self._done)
        return size

    def _upload(
        self, uploaders: ThreadPoolExecutor, uploads: deque[Future[None]], batch: list[tuple[CID, bytes]]
    ) -> None:
        if not batch:
            return
        while len(uploads) >= _UPLOADS_IN_FLIGHT:
            uploads.popleft().result()
        uploads.append(uploaders.submit(self._store.put_many, batch))

    def _lost_spans(self) -> list[_Span]:
        """Probe for the reused blocks, which also pins them; one span for each that the store no longer has."""
        used = {fingerprint for prints in self._prints for fingerprint in prints if fingerprint is not None}
        reused = {fingerprint: self._known[fingerprint].cid for fingerprint in used if fingerprint in self._known}
        present = self._store.has(set(reused.values())) if reused else set()
        lost = {fingerprint for fingerprint, cid in reused.items() if cid not in present}
        for fingerprint in lost:
            del self._known[fingerprint]
            self._claims.pop(fingerprint, None)
        spans: list[_Span] = []
        for span in self._all_spans():
            seen = self._prints[span.file][span.number]
            if seen in lost:
                lost.discard(seen)
                spans.append(span)
        self._done -= sum(span.length for span in spans)
        return spans

    def _result(self) -> Snapshot:
        table = {**self._known, **self._fresh}
        entries: list[FileEntry] = []
        used: dict[bytes, BlockRecord] = {}
        logical = zero = fresh = 0
        for file, prints in zip(self._files, self._prints, strict=True):
            refs: list[BlockRef] = []
            for (position, length), fingerprint in zip(file.spans, prints, strict=True):
                if fingerprint is None:
                    refs.append(BlockRef(None, position, 0, length))
                    zero += length
                    continue
                record = table.get(fingerprint)
                if record is None:
                    raise SourceChanged(file.source.path)
                used[fingerprint] = record
                fresh += length if fingerprint in self._fresh else 0
                refs.append(BlockRef(record.cid, position, record.generation, length))
            logical += file.size
            entries.append(replace(file.entry(), blocks=tuple(refs)))
        blocks = sum(len(prints) for prints in self._prints)
        stats = SnapshotStats(logical, zero, logical - zero - fresh, self._new_bytes, len(self._fresh), blocks)
        return Snapshot(tuple(entries), used, stats)


def _units(spans: Iterable[_Span]) -> Iterator[list[_Span]]:
    """Spans of one file in groups of about 2 MiB, the work of one thread at a time."""
    unit: list[_Span] = []
    size = 0
    for span in spans:
        if unit and (span.file != unit[0].file or size >= _UNIT_BYTES):
            yield unit
            unit, size = [], 0
        unit.append(span)
        size += span.length
    if unit:
        yield unit
