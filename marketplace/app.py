"""The app: routers, gateway, block service, and what runs beside them while it lives."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from everlease.supervision import watch_loop
from marketplace import problems
from marketplace.gateway import endpoint
from marketplace.gateway.endpoint import Gateway
from marketplace.middleware import HttpGuard
from marketplace.parts import Parts, build_parts
from marketplace.routers import auth, health, job_views, jobs, market, streams
from marketplace.services.outages import LONGEST_LOOK_S, watch_store
from marketplace.services.upkeep import LONGEST_UPKEEP_S, collect_regularly, scrub_regularly
from marketplace.settings import MarketplaceSettings

_DESCRIPTION = """Everlease's marketplace. Amounts are base units of the settlement asset, rates base units per hour,
times unix seconds. Errors are RFC 9457 problems. Sign in with POST /v1/auth/nonce and POST /v1/auth/verify."""
_log = structlog.get_logger("marketplace")


def create_app(settings: MarketplaceSettings, clock: Callable[[], float] = time.time) -> FastAPI:
    """The ASGI app. Opens a local store, connects to nothing until it is served."""
    parts = build_parts(settings, clock)
    app = FastAPI(
        title="Everlease marketplace", version="0.1.0", description=_DESCRIPTION, lifespan=_lifespan, redoc_url=None
    )
    app.state.parts = parts
    app.state.gateway = Gateway(parts)
    problems.install(app)
    for router in (health.router, market.router, auth.router, jobs.router, job_views.router, streams.router):
        app.include_router(router)
    app.include_router(endpoint.router)
    app.add_api_route("/", _root, methods=["GET"], tags=["market"])
    if parts.store.app is not None:
        app.mount("/store", parts.store.app)
    app.add_middleware(HttpGuard, metrics=parts.metrics, max_body_bytes=settings.max_body_bytes)
    return app


async def _root() -> dict[str, str]:
    """Where things are."""
    return {"name": "everlease marketplace", "docs": "/docs", "openapi": "/openapi.json", "market": "/v1/market"}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    gateway: Gateway = app.state.gateway
    gateway.start()
    parts.tasks.start("loop lag", lambda alive: watch_loop(alive, parts.metrics.loop_lag.observe), silent_at_most_s=10)
    parts.tasks.start(
        "watch of the store", functools.partial(watch_store, parts), silent_at_most_s=LONGEST_LOOK_S, vital=False
    )
    for name, work, every_s in (
        ("collection of garbage", collect_regularly, parts.settings.collect_every_s),
        ("scrubbing", scrub_regularly, parts.settings.scrub_every_s),
    ):
        longest_s = every_s + LONGEST_UPKEEP_S
        parts.tasks.start(name, functools.partial(work, parts), silent_at_most_s=longest_s, vital=False)
    _log.info("marketplace up", chain=parts.deployment.chain_id, escrow=parts.deployment.escrow)
    try:
        yield
    finally:
        parts.followers.close()
        gateway.close()
        await parts.tasks.close()
        await asyncio.to_thread(parts.close)
        _log.info("marketplace down")
