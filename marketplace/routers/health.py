"""Whether this process lives, whether it can work, and its metrics."""

from collections.abc import Callable

import structlog
from anyio import create_task_group, to_thread
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from everlease.chain.errors import ChainError
from everlease.db.engine import DatabaseUnavailable
from everlease.store.errors import StoreError
from marketplace.dependencies import PartsDep
from marketplace.services.keys import OtherMasterKey

_log = structlog.get_logger("marketplace.health")
router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(parts: PartsDep) -> Response:
    """Database, store and chain answer, the master key is the right one, background tasks run; 503 and what doesn't."""
    found: dict[str, str] = {}

    async def probe(name: str, check: Callable[[], None]) -> None:
        found[name] = await to_thread.run_sync(_outcome, check)

    async with create_task_group() as group:
        group.start_soon(probe, "database", parts.db.ping)
        group.start_soon(probe, "master key", parts.check_master_key)
        group.start_soon(probe, "store", parts.store.ping)
        group.start_soon(probe, "chain", lambda: parts.deployment.check_chain(parts.chain))
    ready = all(outcome == "ok" for outcome in found.values()) and parts.tasks.roster.ready
    found |= parts.tasks.roster.lines()
    return JSONResponse({"status": "ready" if ready else "not ready", "checks": found}, 200 if ready else 503)


@router.get("/metrics", response_class=Response)
def metrics(parts: PartsDep) -> Response:
    """Prometheus text format."""
    return Response(parts.metrics.render(), media_type="text/plain; version=0.0.4")


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except (DatabaseUnavailable, StoreError, ChainError, OtherMasterKey) as error:
        # Hosts, users and paths are for the log; anybody may ask here.
        _log.warning("not ready", reason=str(error))
        return "unavailable"
    return "ok"
