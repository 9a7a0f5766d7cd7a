"""One checkpoint of one job: dump, blocks, signed manifest, fenced commit; and what stays of it after kill -9."""

import asyncio
import json
import logging
import secrets
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from subprocess import SubprocessError
from threading import Event
from typing import Any

from everlease.store.base import BlockStore, put_block
from everlease.store.errors import AccessDenied, StoreError, StoreFull
from everlease.store.manifest import commitment, sign_manifest
from everlease.store.packs import FULL_ERRNOS
from everlease.store.pipeline import load_known, save_known, snapshot
from everlease.store.sealing import JobKeys
from everlease.wire.node import MAX_FRAME_BYTES, CommitAnswer
from provider_agent import commit, outputs
from provider_agent.commit import Committed, Stored, sources_of
from provider_agent.errors import AgentError, CheckpointFailed, JobGone
from provider_agent.host import Host
from provider_agent.records import JobRecord, PendingCheckpoint
from provider_agent.runtime import diagnosis
from provider_agent.runtime.checkpoint import DumpResult
from provider_agent.runtime.errors import ContainerFault, DumpFailed
from provider_agent.runtime.everlease_runc import replace_file

log = logging.getLogger(__name__)


def _is_full(error: Exception) -> bool:
    """Whether the host's disk, or this user's share of it, is full."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in FULL_ERRNOS


class Checkpoints:
    """The checkpoints of one job on this host, one at a time; a second caller waits its turn."""

    def __init__(self, host: Host, job_id: str, keys: JobKeys, cancel: Event) -> None:
        self._host, self.job_id, self._keys, self._cancel = host, job_id, keys, cancel
        self._turn = asyncio.Lock()
        self._answers: dict[str, CommitAnswer] = {}
        self._heard = asyncio.Event()
        self.dumping = False

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is in flight."""
        return self._turn.locked()

    async def take(
        self, store: BlockStore, renew: Callable[[], Awaitable[None]], *, hold: bool = False, final: bool = False
    ) -> Committed:
        """Checkpoint the job and wait until the gateway has committed it. ``renew`` gets a fresh token for the store.

        With ``hold`` the job stays frozen once its memory is written; if the checkpoint then fails it goes on.
        Raises CheckpointFailed, JobGone. Whatever happens, the dump is removed.
        """
        async with self._turn:
            try:
                return await self._take(store, renew, hold, final)
            except (OSError, sqlite3.Error) as error:
                # A full disk hits our own journal too. What was begun is settled before the next checkpoint.
                raise CheckpointFailed(f"this host failed: {error}", retryable=True, full=_is_full(error)) from error

    async def _take(
        self, store: BlockStore, renew: Callable[[], Awaitable[None]], hold: bool, final: bool
    ) -> Committed:
        began = time.monotonic()
        await self._settle_pending()
        pending = self._begin(final)
        folder = self._host.folders.dumps(self.job_id) / pending.folder
        try:
            dump = await self._dump(pending, folder, hold, final)
            stored = await self._store_renewing(pending, dump, folder, store, renew)
            self._host.crash.reach("checkpoint.stored")
            answer = await self._commit(pending, dump, stored, time.monotonic() - began, final)
            self._settle(pending, answer, stored, dump, time.monotonic() - began)
        except (CheckpointFailed, asyncio.CancelledError):
            self._clear(pending)
            raise
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)
        self._host.crash.reach("checkpoint.done")
        stats = stored.found.stats
        return Committed(
            stored.cid,
            pending.seq,
            dump.mode,
            dump.pause_s,
            time.monotonic() - began,
            stats.logical_bytes,
            stats.new_bytes,
            hold,
        )

    async def settle(self) -> None:
        """After a restart: finish the commit that was under way, if there was one. Raises CheckpointFailed."""
        async with self._turn:
            await self._settle_pending()

    def answered(self, answer: CommitAnswer) -> None:
        """The gateway's word on a commit that is expected; it may come before anyone waits for it."""
        self._answers[answer.request] = answer
        self._heard.set()

    def expects(self, request: str) -> bool:
        """Whether this commit is under way here."""
        record = self._host.journal.job(self.job_id)
        return record is not None and record.pending is not None and record.pending.request == request

    def _record(self) -> JobRecord:
        record = self._host.journal.job(self.job_id)
        if record is None:
            raise JobGone(self.job_id)
        return record

    def _begin(self, final: bool) -> PendingCheckpoint:
        record = self._record()
        seq = record.head_seq + 1
        pending = PendingCheckpoint(
            seq=seq, request=secrets.token_hex(8), folder=f"{seq}-{secrets.token_hex(4)}", final=final
        )
        self._host.journal.put_job(record.model_copy(update={"pending": pending}))
        self._host.crash.reach("checkpoint.begun")
        return pending

    def _clear(self, pending: PendingCheckpoint) -> None:
        """Forget what was begun; but a commit that was asked for may be made yet, whoever gives up waiting for it."""
        record = self._host.journal.job(self.job_id)
        if record is None or record.pending is None or record.pending.request != pending.request:
            return
        if record.pending.phase != "committing":
            self._host.journal.put_job(record.model_copy(update={"pending": None}))

    async def _dump(self, pending: PendingCheckpoint, folder: Path, hold: bool, final: bool) -> DumpResult:
        record = self._record()
        container = record.container or ""
        self.dumping = not hold
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if final:
                dump = await asyncio.to_thread(outputs.archive, self._host.engine, container, folder)
            elif record.mode == "process":
                dump = await asyncio.to_thread(self._host.dumper.dump, container, folder, stay_frozen=hold)
            else:
                dump = await asyncio.to_thread(self._host.dumper.snapshot, container, folder)
        except DumpFailed as error:
            full = diagnosis.FULL in error.reason
            raise CheckpointFailed(
                error.reason, retryable=error.retryable, permanent=error.permanent, full=full
            ) from error
        except (ContainerFault, OSError, SubprocessError) as error:
            raise CheckpointFailed(str(error), retryable=True, full=_is_full(error)) from error
        finally:
            self.dumping = False
        # The memory was written between the two clocks; the earlier one never understates what a loss costs.
        taken = self._host.clock.unix() - dump.total_s
        update = {"phase": "dumped", "taken_at": taken, "pause_s": dump.pause_s}
        self._advance(pending, update)
        self._host.crash.reach("final.dumped" if final else "checkpoint.dumped")
        return dump

    def _advance(self, pending: PendingCheckpoint, update: dict[str, Any]) -> None:
        record = self._record()
        if record.pending is None or record.pending.request != pending.request:
            raise JobGone(self.job_id)
        changed = record.pending.model_copy(update=update)
        self._host.journal.put_job(record.model_copy(update={"pending": changed}))

    async def _store_renewing(
        self,
        pending: PendingCheckpoint,
        dump: DumpResult,
        folder: Path,
        store: BlockStore,
        renew: Callable[[], Awaitable[None]],
    ) -> Stored:
        """Store blocks and manifest, once more with a fresh token if the first has run out."""
        try:
            return await asyncio.to_thread(self._store, pending, dump, folder, store)
        except AccessDenied:
            try:
                await renew()
            except AgentError as error:
                raise CheckpointFailed(f"no fresh token for the store: {error}", retryable=True) from error
        try:
            return await asyncio.to_thread(self._store, pending, dump, folder, store)
        except AccessDenied as error:
            raise CheckpointFailed(str(error), retryable=True) from error

    def _store(self, pending: PendingCheckpoint, dump: DumpResult, folder: Path, store: BlockStore) -> Stored:
        """Blocks, then the manifest that names them. Raises CheckpointFailed."""
        record = self._record()
        known = load_known(self._host.folders.known(self.job_id))
        try:
            found = snapshot(sources_of(folder), store, self._keys, known=known, cancel=self._cancel)
            manifest = commit.manifest_of(self._host, record, pending, dump, found, self._keys.generation)
            payload = sign_manifest(manifest, self._host.identity.key.secret)
            cid = put_block(store, self._keys.seal(payload))
            save_known(self._host.folders.job(self.job_id) / "known.next", found.known)
        except AccessDenied:
            raise
        except (StoreError, OSError) as error:
            full = isinstance(error, StoreFull) or _is_full(error)
            retryable = full or getattr(error, "retryable", True)
            raise CheckpointFailed(str(error), retryable=retryable, full=full) from error
        digest, signature = commitment(payload)
        return Stored(cid, manifest, digest, signature, found)

    async def _commit(
        self, pending: PendingCheckpoint, dump: DumpResult, stored: Stored, total_s: float, final: bool
    ) -> CommitAnswer:
        record = self._record()
        taken_at = record.pending.taken_at if record.pending else self._host.clock.unix()
        body = commit.request_of(record, pending, stored, dump, total_s, taken_at)
        text = json.dumps(body)
        if len(text) > MAX_FRAME_BYTES - 4096:
            raise CheckpointFailed("the checkpoint has too many blocks to be committed at once", retryable=False)
        replace_file(str(self._host.folders.last_commit(self.job_id)), text)
        self._advance(pending, {"phase": "committing", "manifest": stored.cid})
        self._host.messenger.post(f"commit:{pending.request}", body)
        self._host.crash.reach("checkpoint.requested")
        return await self._answer(pending.request)

    async def _answer(self, request: str) -> CommitAnswer:
        """Wait for the gateway, over as many sessions as it takes. Raises JobGone."""
        while request not in self._answers:
            if self._cancel.is_set():
                raise JobGone(self.job_id)
            self._heard.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._heard.wait()
        return self._answers.pop(request)

    def _settle(
        self, pending: PendingCheckpoint, answer: CommitAnswer, stored: Stored, dump: DumpResult, total_s: float
    ) -> None:
        self._host.crash.reach("checkpoint.answered")
        costs = {"pause_s": dump.pause_s, "upload_s": max(total_s - dump.pause_s, 0.0)}
        self._conclude(pending, answer, stored.cid, costs)

    def _conclude(self, pending: PendingCheckpoint, answer: CommitAnswer, cid: str, costs: dict[str, float]) -> None:
        """Note the outcome; only then is the request forgotten. Raises CheckpointFailed for a no."""
        record = self._record()
        changes: dict[str, Any] = {"pending": None}
        if answer.ok:
            taken = record.pending.taken_at if record.pending else self._host.clock.unix()
            changes |= {"head": cid, "head_seq": pending.seq, "taken_at": taken, "tried": True, **costs}
            following = self._host.folders.job(self.job_id) / "known.next"
            if following.exists():
                following.replace(self._host.folders.known(self.job_id))
        self._host.journal.put_job(record.model_copy(update=changes))
        self._host.journal.acknowledged([f"commit:{pending.request}"])
        if not answer.ok:
            raise CheckpointFailed(
                answer.error or "the marketplace refused the checkpoint",
                retryable=not answer.fenced,
                fenced=answer.fenced,
            )

    async def _settle_pending(self) -> None:
        """What a killed agent left: a commit under way is waited for, anything before is void."""
        record = self._record()
        pending = record.pending
        if pending is None:
            return
        if pending.phase != "committing" or pending.manifest is None:
            self._host.journal.put_job(record.model_copy(update={"pending": None}))
            return
        # The agent may have been killed just before the request reached the outbox; or it lies there and was answered,
        # which could not be written down, and is sent once more only from a new place.
        body = json.loads(self._host.folders.last_commit(self.job_id).read_text(encoding="utf-8"))
        self._host.journal.acknowledged([f"commit:{pending.request}"])
        self._host.messenger.post(f"commit:{pending.request}", body)
        answer = await self._answer(pending.request)
        self._conclude(pending, answer, pending.manifest, {"pause_s": pending.pause_s})
