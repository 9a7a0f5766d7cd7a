"""The block store as the marketplace uses it: asking what is there, and handing out tokens."""

import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from starlette.applications import Starlette

from everlease.domain.job import FUND_WITHIN_S
from everlease.domain.manifest import CID
from everlease.store.base import get_block
from everlease.store.block_service import BlockService, GcReport, Session
from everlease.store.cid import cid_of
from everlease.store.http import HttpBlockStore
from everlease.store.local import LocalBlockStore
from everlease.store.plain import PlainFile, read_plain
from everlease.store.scrub import scrub_store
from everlease.store.service import create_block_app
from everlease.store.sessions import SessionLedger
from everlease.store.tokens import Scope, issue_token, verify_token
from marketplace.settings import MarketplaceSettings

_COMMIT_PIN_S = 900.0
_IMAGE_PIN_S = FUND_WITHIN_S + 3600.0
"""An order that is paid in time is mirrored, and so keeps its image, before that is over."""
_ANSWER_S = 10.0
"""A remote store that says nothing for so long counts as away: nodes wait for what it says of their commits."""
_READ_WRITE = (Scope.READ, Scope.WRITE)
_PROBED = cid_of(b"")
"""A block that a store may have or not: a question without one is never sent."""


class StoreGate:
    """A block store in this process (then ``app`` serves it) or behind a URL; the token secret is the same for both."""

    def __init__(self, settings: MarketplaceSettings, clock: Callable[[], float] = time.time) -> None:
        self.url = settings.store_url
        self._secret = settings.store_token_secret.get_secret_value().encode()
        self._lifetime = settings.store_token_lifetime_s
        self._clock = clock
        self._remote: HttpBlockStore | None = None
        self._holding: HttpBlockStore | None = None
        self._service: BlockService | None = None
        self.app: Starlette | None = None
        if settings.store_is_remote:

            def remote(purpose: str, pin_s: float) -> HttpBlockStore:
                return HttpBlockStore(settings.store, lambda: self._own_token(purpose, pin_s), timeout_s=_ANSWER_S)

            self._remote, self._holding = remote("commit", _COMMIT_PIN_S), remote("image", _IMAGE_PIN_S)
        else:
            folder = Path(settings.store)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._local = LocalBlockStore(folder)
            self._ledger = SessionLedger(folder / "sessions.db")
            self._service = BlockService(self._local, self._ledger, clock)
            self.app = create_block_app(self._service, lambda token: verify_token(self._secret, token, now=clock()))

    def missing(self, cids: Collection[str], session: str) -> set[str]:
        """Which blocks are absent; those present are pinned for a quarter of an hour. Raises StoreUnavailable."""
        wanted = [CID(cid) for cid in cids]
        if self._service is not None:
            held = Session(f"commit:{session}", self._clock() + _COMMIT_PIN_S)
            return set[str](self._service.missing(wanted, held))
        assert self._remote is not None
        return set[str](wanted) - self._remote.has(wanted)

    def token(
        self, subject: str, session: str, *, write: bool, job: str | None = None, quota_bytes: int | None = None
    ) -> tuple[str, float]:
        """A token for a node or tenant, and when it expires (unix seconds).

        Sessions are counted anew in each lifetime of a token: quotas bound a rate and not a long job's whole life.
        """
        now = self._clock()
        token = issue_token(
            self._secret,
            subject=subject,
            scopes=_READ_WRITE if write else (Scope.READ,),
            session=f"{session}/{int(now // self._lifetime)}",
            now=now,
            ttl_s=self._lifetime,
            job=job,
            quota_bytes=quota_bytes,
        )
        return token, now + self._lifetime

    def collect(self, live: Iterable[str]) -> GcReport:
        """Garbage collection: ``live`` names every block to keep. Raises StoreError."""
        kept = map(CID, live)
        if self._service is not None:
            return self._service.collect(kept)
        assert self._remote is not None
        return self._remote.collect(kept)

    def scrub(self) -> tuple[str, ...]:
        """Read a local store through and drop damaged blocks, so that the next upload stores them anew; names them.

        A remote store is scrubbed where it runs.
        """
        return () if self._remote is not None else scrub_store(self._local, drop_corrupt=True).corrupt

    def block(self, cid: CID) -> bytes:
        """One block, checked against its name. Raises StoreError."""
        return get_block(self._remote if self._remote is not None else self._local, cid)

    def plain(self, cid: CID) -> PlainFile:
        """A plain file's list (an image's). Raises StoreError."""
        return read_plain(self._remote if self._remote is not None else self._local, cid)

    def hold(self, cids: Iterable[CID]) -> bool:
        """Whether all these blocks are in the store; they stay for as long as an order may wait to be paid.

        Raises StoreUnavailable.
        """
        wanted = set(cids)
        if self._service is not None:
            return not self._service.missing(wanted, Session("image", self._clock() + _IMAGE_PIN_S))
        assert self._holding is not None
        return self._holding.has(wanted) == wanted

    def ping(self) -> None:
        """Raise StoreError unless the store answers."""
        (self._remote or self._local).has([_PROBED])

    def close(self) -> None:
        """Release files, the lock and connections."""
        if self._remote is not None and self._holding is not None:
            self._remote.close()
            self._holding.close()
            return
        self._local.close()
        self._ledger.close()

    def _own_token(self, session: str, ttl_s: float) -> str:
        return issue_token(
            self._secret,
            subject="marketplace",
            scopes=(*_READ_WRITE, Scope.GC),
            session=session,
            now=self._clock(),
            ttl_s=ttl_s,
        )
