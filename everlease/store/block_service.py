"""The block store with upload sessions, quotas and garbage collection: what the HTTP app and the marketplace call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from everlease.domain.manifest import CID
from everlease.store.base import BlockStore
from everlease.store.cid import digest_of, from_digest
from everlease.store.live_set import LiveSet
from everlease.store.local import LocalBlockStore
from everlease.store.sessions import SessionLedger

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Seconds and bytes. `grace_s`: how long a block stays condemned; longer than any session, or uploads get lost."""

    max_session_s: float = 6 * 3600
    grace_s: float = 7 * 3600
    session_quota_bytes: int = 1 << 40

    def __post_init__(self) -> None:
        if self.grace_s <= self.max_session_s:
            raise ValueError("grace_s has to be longer than max_session_s")


@dataclass(frozen=True, slots=True)
class Session:
    """An upload session, when it ends (unix seconds), and how much it may store if less than others."""

    name: str
    expires_at: float
    quota_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GcReport:
    """Blocks named by the caller, condemned ones that wait, deleted ones; bytes given back to the disk."""

    live: int
    condemned: int
    deleted: int
    freed_bytes: int


class BlockService:
    """A block store whose blocks are held by sessions. `clock` gives unix seconds. Thread-safe."""

    def __init__(
        self,
        store: BlockStore,
        ledger: SessionLedger,
        clock: Callable[[], float],
        limits: ServiceLimits | None = None,
    ) -> None:
        self.store = store
        self.limits = limits or ServiceLimits()
        self._ledger = ledger
        self._clock = clock

    def now(self) -> float:
        """Unix seconds by the service's clock."""
        return self._clock()

    def put(self, session: Session, blocks: Collection[tuple[CID, bytes]]) -> int:
        """Pin and store blocks; how many were new. Raises BlockCorrupt, BlockTooLarge, StoreFull."""
        expires = self._expiry(session)
        # Pinned before it is stored: gc never sees it unheld.
        self._ledger.pin(session.name, [digest_of(cid) for cid, _ in blocks], expires)
        known = self.store.has([cid for cid, _ in blocks])
        fresh = [(cid, data) for cid, data in blocks if cid not in known]
        size = sum(len(data) for _, data in fresh)
        most = self.limits.session_quota_bytes
        quota = most if session.quota_bytes is None else min(session.quota_bytes, most)
        self._ledger.charge(session.name, size, quota, expires)
        self.store.put_many(fresh)
        return len(fresh)

    def missing(self, cids: Collection[CID], session: Session | None) -> set[CID]:
        """Which blocks are absent. With a session, all are pinned first, so those present stay until it ends.

        A commit calls this with a session of its own before it moves the job's head.
        """
        if session is not None:
            self._ledger.pin(session.name, [digest_of(cid) for cid in cids], self._expiry(session))
        return set(cids) - self.store.has(cids)

    def fetch(self, cids: Iterable[CID]) -> Iterator[tuple[CID, bytes]]:
        """Blocks in the order asked. Raises BlockNotFound or BlockCorrupt."""
        return self.store.get_many(cids)

    def collect(self, live: Iterable[CID]) -> GcReport:
        """Garbage collection: `live` names every manifest to keep and every block of each.

        Blocks neither live nor held are condemned; those condemned for longer than the grace are deleted. `live` is
        read once and never held in memory; if it raises, nothing was touched.
        """
        with LiveSet() as marked:
            marked.add(map(digest_of, live))
            return self.sweep(marked)

    def sweep(self, marked: LiveSet) -> GcReport:
        """``collect`` once every live block is marked."""
        now = self._clock()
        self._ledger.expire(now)
        self._ledger.pardon(marked)
        names = iter(self.store.cids())
        while page := [digest_of(cid) for cid in islice(names, _PAGE)]:
            live = marked.among(page)
            self._ledger.condemn((digest for digest in page if digest not in live), now)
        deleted = self._execute(now)
        freed = self.store.compact() if isinstance(self.store, LocalBlockStore) else 0
        return GcReport(len(marked), self._ledger.condemned(), deleted, freed)

    def _execute(self, now: float) -> int:
        deleted = 0
        while True:
            with self._ledger.executing(now, now - self.limits.grace_s, _PAGE) as digests:
                if digests:
                    self.store.delete(map(from_digest, digests))
            deleted += len(digests)
            if len(digests) < _PAGE:
                return deleted

    def _expiry(self, session: Session) -> float:
        return min(session.expires_at, self._clock() + self.limits.max_session_s)
