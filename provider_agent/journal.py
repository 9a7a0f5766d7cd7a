"""The agent's memory across kill -9 and power cuts: one SQLite file, each change synced before the call returns.

SQLite in WAL mode with synchronous=FULL cuts off a torn tail by itself. Calls come from any thread.

A disk that is full must not end the agent: `tidy` sets room aside inside the files, which are written in place. Not
every file system does that (btrfs and ZFS write elsewhere), so a write may still raise sqlite3.OperationalError.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from everlease.wire.commands import CommandResult
from everlease.wire.terms import SignedReceipt
from provider_agent.records import BidRecord, JobRecord, LeaseRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS job (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS step (
  job TEXT NOT NULL, step TEXT NOT NULL, result TEXT NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (job, step)) STRICT;
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS lease (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS receipt (lease TEXT PRIMARY KEY, seq INTEGER NOT NULL, signed TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS bid (
  digest TEXT PRIMARY KEY, job TEXT NOT NULL, record TEXT NOT NULL, at REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, block INTEGER NOT NULL) STRICT;
"""
KEEP_S, KEEP_BIDS_S = 7 * 86_400, 86_400
RESERVE_BYTES = 4 << 20
"""As much as SQLite lets the log of changes grow between two checkpoints (1000 pages, `wal_autocheckpoint`)."""


_SETTLED = """lease WHERE json_extract(record, '$.settled') AND json_extract(record, '$.params.job_id') NOT IN
  (SELECT id FROM job)"""
_OVER = (
    ("DELETE FROM step WHERE at < ? AND job NOT IN (SELECT id FROM job)", KEEP_S),
    ("DELETE FROM bid WHERE at < ? AND job NOT IN (SELECT id FROM job)", KEEP_BIDS_S),
    (f"DELETE FROM receipt WHERE lease IN (SELECT id FROM {_SETTLED})", None),  # noqa: S608 - no word of a stranger's
    (f"DELETE FROM {_SETTLED}", None),  # noqa: S608
)
"""What can go, and after how many seconds."""


class Outgoing(NamedTuple):
    """A message that waits for its acknowledgement: its place, its unique key, and its body without a number."""

    id: int
    key: str
    body: dict[str, Any]


class Journal:
    """Open (and make) the journal at ``path``. ``now`` gives unix seconds."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._now, self._path = now, path
        self._lock = threading.RLock()
        self._jobs: dict[str, JobRecord] = {}
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        for (text,) in self._all("SELECT record FROM job"):
            record = JobRecord.model_validate_json(text)
            self._jobs[record.job_id] = record

    def tidy(self) -> bool:
        """Forget what no job needs any more, and set room aside for a full disk: pages to use again, and a log of
        changes of its full length. Call it now and then. Returns whether there is that room.
        """
        with self._lock:
            try:
                for sql, before in _OVER:
                    self._do(sql, *([self._now() - before] if before else []))
                self._do("DROP TABLE IF EXISTS reserve")
                if self._reserved() < RESERVE_BYTES:
                    self._do("CREATE TABLE reserve (bytes BLOB NOT NULL) STRICT")
                    self._do("INSERT INTO reserve VALUES (zeroblob(?))", RESERVE_BYTES)
                    self._do("DROP TABLE reserve")
                    self._one("PRAGMA wal_checkpoint(PASSIVE)")
            except sqlite3.OperationalError:
                return False
            return self._reserved() >= RESERVE_BYTES

    def _reserved(self) -> int:
        (pages,), (size,) = self._all("PRAGMA freelist_count")[0], self._all("PRAGMA page_size")[0]
        log = self._path.with_name(f"{self._path.name}-wal")
        return min(int(pages) * int(size), log.stat().st_size if log.exists() else 0)

    def close(self) -> None:
        """Close the file; the journal is of no use afterwards."""
        with self._lock:
            self._db.close()

    # --- jobs ---

    def jobs(self) -> list[JobRecord]:
        """Every job this node holds."""
        with self._lock:
            return list(self._jobs.values())

    def job(self, job_id: str) -> JobRecord | None:
        """The record of one job."""
        with self._lock:
            return self._jobs.get(job_id)

    def put_job(self, record: JobRecord) -> None:
        """Write a job's record, replacing the older one."""
        with self._lock:
            self._do("INSERT OR REPLACE INTO job VALUES (?, ?)", record.job_id, record.model_dump_json())
            self._jobs[record.job_id] = record

    def drop_job(self, job_id: str) -> None:
        """Forget a job; the answers to its steps stay for repeats."""
        with self._lock:
            self._do("DELETE FROM job WHERE id = ?", job_id)
            self._jobs.pop(job_id, None)

    # --- steps ---

    def result(self, job_id: str, step: str) -> CommandResult | None:
        """What was answered to this step, so that a repeated command is not carried out twice."""
        row = self._one("SELECT result FROM step WHERE job = ? AND step = ?", job_id, step)
        return CommandResult.model_validate_json(row[0]) if row else None

    def finish(self, result: CommandResult) -> None:
        """Record a step's result and put it into the outbox, in one transaction."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR IGNORE INTO step VALUES (?, ?, ?, ?)",
                (result.job_id, result.step, result.model_dump_json(), self._now()),
            )
            body = {"type": "command_result", "result": result.model_dump(mode="json")}
            self._put_outgoing(f"result:{result.job_id}:{result.step}", body)

    # --- outbox ---

    def post(self, key: str, body: dict[str, Any]) -> None:
        """Keep a message until it is acknowledged; a second one under the same key is the same message."""
        with self._lock:
            self._put_outgoing(key, body)

    def outgoing(self, after: int = 0) -> list[Outgoing]:
        """Messages that wait, oldest first, from the one after place ``after``."""
        rows = self._all("SELECT id, key, body FROM outbox WHERE id > ? ORDER BY id", after)
        return [Outgoing(place, key, json.loads(body)) for place, key, body in rows]

    def acknowledged(self, keys: Iterable[str]) -> None:
        """Forget messages that arrived."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM outbox WHERE key = ?", [(key,) for key in keys])

    def _put_outgoing(self, key: str, body: dict[str, Any]) -> None:
        self._db.execute("INSERT OR IGNORE INTO outbox (key, body) VALUES (?, ?)", (key, json.dumps(body)))

    # --- leases, receipts, bids ---

    def leases(self) -> list[LeaseRecord]:
        """Leases that are not settled."""
        rows = self._all("SELECT record FROM lease ORDER BY id")
        return [lease for (text,) in rows if not (lease := LeaseRecord.model_validate_json(text)).settled]

    def put_lease(self, lease: LeaseRecord) -> None:
        """Write a lease, replacing the older record."""
        self._do("INSERT OR REPLACE INTO lease VALUES (?, ?)", lease.lease_id, lease.model_dump_json())

    def lease(self, lease_id: str) -> LeaseRecord | None:
        """One lease, settled or not."""
        row = self._one("SELECT record FROM lease WHERE id = ?", lease_id)
        return LeaseRecord.model_validate_json(row[0]) if row else None

    def keep_receipt(self, signed: SignedReceipt) -> bool:
        """Keep a receipt if it is the newest of its lease; whether it was."""
        receipt = signed.receipt
        with self._lock:
            row = self._one("SELECT seq FROM receipt WHERE lease = ?", receipt.lease_id)
            if row is not None and row[0] >= receipt.seq:
                return False
            self._do(
                "INSERT OR REPLACE INTO receipt VALUES (?, ?, ?)",
                receipt.lease_id,
                receipt.seq,
                signed.model_dump_json(),
            )
            return True

    def receipt(self, lease_id: str) -> SignedReceipt | None:
        """The newest receipt of a lease."""
        row = self._one("SELECT signed FROM receipt WHERE lease = ?", lease_id)
        return SignedReceipt.model_validate_json(row[0]) if row else None

    def mark(self, name: str, default: int) -> int:
        """How far something was read of the chain: a block."""
        row = self._one("SELECT block FROM mark WHERE name = ?", name)
        return int(row[0]) if row else default

    def put_mark(self, name: str, block: int) -> None:
        """Note how far something was read."""
        self._do("INSERT OR REPLACE INTO mark VALUES (?, ?)", name, block)

    def put_bid(self, bid: BidRecord) -> None:
        """Remember a bid before it is sent."""
        job, record = bid.bid.order_hash, bid.model_dump_json()
        self._do("INSERT OR REPLACE INTO bid VALUES (?, ?, ?, ?)", bid.digest, job, record, self._now())

    def bids(self, job_id: str) -> list[BidRecord]:
        """Our bids on a job, newest first."""
        rows = self._all("SELECT record FROM bid WHERE job = ? ORDER BY at DESC, rowid DESC", job_id)
        return [BidRecord.model_validate_json(text) for (text,) in rows]

    def _do(self, sql: str, *values: object) -> None:
        with self._lock:
            self._db.execute(sql, values)

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        with self._lock:
            row: tuple[Any, ...] | None = self._db.execute(sql, values).fetchone()
            return row

    def _all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()
