"""The explorer: the mirror over HTTP, read only. Pages are newest first; ``next`` of one is ``after`` of the next.

Amounts are base units, times unix seconds, ids and addresses lower-case 0x-hex. Errors are RFC 9457 problems.
"""

import base64
import json
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from fastapi import Path as UrlPath
from pydantic import AfterValidator, BaseModel

from everlease.chain._generated.events import EVENTS
from everlease.db import Database, explorer
from everlease.domain.lease import LeaseState

_HEX32 = r"^0x[0-9a-f]{64}$"
_ADDRESS = r"^0x[0-9a-fA-F]{40}$"
Id = Annotated[str, UrlPath(pattern=_HEX32)]
After = Annotated[str | None, Query(max_length=400, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=explorer.MAX_PAGE)]
SomeAddress = Annotated[str, Query(pattern=_ADDRESS), AfterValidator(str.lower)]
_EVENT_NAMES = tuple(sorted(kind.__name__ for kind in EVENTS.values()))
SomeId = Annotated[str, Query(pattern=_HEX32)]


class PageOut(BaseModel):
    """``next`` is null on the last page."""

    items: list[dict[str, Any]]
    next: str | None


def _page(page: explorer.Page) -> PageOut:
    if page.next is None:
        return PageOut(items=page.items, next=None)
    return PageOut(items=page.items, next=base64.urlsafe_b64encode(json.dumps(page.next).encode()).decode())


def _after(text: str | None, *kinds: type) -> explorer.After:
    """The key in a page's ``next``; 400 where it is not one of this list's."""
    if text is None:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(text.encode()))
        if isinstance(found, list) and [type(part) for part in found] == list(kinds):
            return tuple(found)
    except ValueError:
        pass
    raise HTTPException(400, "`after` is not the `next` of a page of this list")


def _alone(**filters: object) -> None:
    """400 where more than one is given: no index serves them together, and a search could be as long as the history."""
    given = [name for name, value in filters.items() if value is not None]
    if len(given) > 1:
        raise HTTPException(400, f"ask for one of {', '.join(given)}, not for several at once")


def warm(database: Database) -> None:
    """Connect and ask what visitors ask first, before they do. Raises DatabaseUnavailable."""
    with explorer.walking(database) as tx:
        explorer.stats(tx)
        explorer.leases(tx, state=None, provider=None, after=None, limit=1)
        for only in (explorer.EventFilter(), explorer.EventFilter(party="0x" + "00" * 20)):
            explorer.events(tx, only, _EVENT_NAMES, after=None, limit=1)


def create_explorer_router(database: Database) -> APIRouter:
    """Routes under ``/v1/explorer`` over one mirror."""
    router = APIRouter(prefix="/v1/explorer", tags=["explorer"])

    @router.get("/leases")
    def leases(
        after: After = None,
        limit: Limit = 50,
        state: LeaseState | None = None,
        provider: SomeAddress | None = None,
        job_id: SomeId | None = None,
    ) -> PageOut:
        """Leases, newest first: of a job, or of a state, a provider or both."""
        if job_id is not None:
            _alone(job_id=job_id, state=state, provider=provider)
            epoch = _after(after, int)
            with explorer.walking(database) as tx:
                return _page(explorer.leases_of_job(tx, job_id, after=epoch, limit=limit))
        key = _after(after, int, str)
        with explorer.walking(database) as tx:
            return _page(explorer.leases(tx, state=state, provider=provider, after=key, limit=limit))

    @router.get("/leases/{lease_id}")
    def lease(lease_id: Id) -> dict[str, Any]:
        """One lease."""
        with explorer.walking(database) as tx:
            return _found(explorer.lease(tx, lease_id), f"there is no lease {lease_id}")

    @router.get("/events")
    def events(
        after: After = None,
        limit: Limit = 50,
        name: Annotated[str | None, Query(max_length=40)] = None,
        job_id: SomeId | None = None,
        lease_id: SomeId | None = None,
        address: SomeAddress | None = None,
    ) -> PageOut:
        """Contract events, newest first: of a job, a lease or an address, with or without a name, or of a name."""
        _alone(job_id=job_id, lease_id=lease_id, address=address)
        key = _after(after, int, int)
        only = explorer.EventFilter(job_id, lease_id, name, address)
        with explorer.walking(database) as tx:
            return _page(explorer.events(tx, only, _EVENT_NAMES, after=key, limit=limit))

    @router.get("/providers")
    def providers(after: After = None, limit: Limit = 50) -> PageOut:
        """Providers by stake, largest first."""
        key = _after(after, int, str)
        with explorer.walking(database) as tx:
            return _page(explorer.providers(tx, after=key, limit=limit))

    @router.get("/slashes")
    def slashes(after: After = None, limit: Limit = 50) -> PageOut:
        """Slashes, newest first."""
        key = _after(after, int, str)
        with explorer.walking(database) as tx:
            return _page(explorer.slashes(tx, after=key, limit=limit))

    @router.get("/jobs/{job_id}")
    def job(job_id: Id) -> dict[str, Any]:
        """A job's escrow and its leases."""
        with explorer.walking(database) as tx:
            return _found(explorer.job(tx, job_id), f"no escrow was ever funded for job {job_id}")

    @router.get("/addresses/{address}")
    def address(address: Annotated[str, UrlPath(pattern=_ADDRESS)]) -> dict[str, Any]:
        """All that is known of an address."""
        with explorer.walking(database) as tx:
            return explorer.address(tx, address.lower())

    @router.get("/stats")
    def stats() -> dict[str, Any]:
        """Totals."""
        with explorer.walking(database) as tx:
            return explorer.stats(tx)

    @router.get("/status")
    def status() -> dict[str, Any]:
        """The mirror's position, how many blocks it lags, and why it halted, if it did."""
        with explorer.walking(database) as tx:
            return _found(explorer.status(tx), "the mirror has not started yet")

    return router


def _found(row: dict[str, Any] | None, otherwise: str) -> dict[str, Any]:
    if row is None:
        raise HTTPException(404, otherwise)
    return row
