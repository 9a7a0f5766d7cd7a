"""The indexer's HTTP side: explorer, health, metrics."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from starlette.exceptions import HTTPException

from everlease.db import Database, mirror
from everlease.db.engine import DatabaseUnavailable, ValueRefused
from everlease.supervision import Roster
from everlease.supervision.prometheus import TaskCollector
from indexer.api import create_explorer_router, warm
from indexer.follower import Step
from indexer.service import IndexerLoop


class Metrics:
    """Counters of steps and events, gauges of position; one registry per process part, none global."""

    def __init__(self, tasks: Roster | None = None) -> None:
        self.registry = CollectorRegistry()
        if tasks is not None:
            self.registry.register(TaskCollector(tasks))
        self._steps = Counter("everlease_indexer_steps", "Durable steps by kind", ["kind"], registry=self.registry)
        self._events = Counter("everlease_indexer_events", "Events by kind of step", ["kind"], registry=self.registry)
        self._block = Gauge("everlease_indexer_block", "Newest block in the mirror", registry=self.registry)
        self._lag = Gauge("everlease_indexer_lag_blocks", "Blocks behind the head", registry=self.registry)
        self._halted = Gauge("everlease_indexer_halted", "1 if it halted", registry=self.registry)

    def step(self, step: Step, count: int) -> None:
        """Count a step and the events it moved."""
        self._steps.labels(step.value).inc()
        self._events.labels(step.value).inc(count)

    def observe(self, database: Database) -> None:
        """Read the cursor into the gauges."""
        with database.transaction() as tx:
            row = mirror.cursor(tx)
        if row is not None:
            self._block.set(row.block_number)
            self._lag.set(max(0, row.head_number - row.block_number))
            self._halted.set(bool(row.halted))


def _problem(request: Request, status: int, detail: str) -> JSONResponse:
    title = HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(content | {"instance": request.url.path}, status, media_type="application/problem+json")


def create_app(
    database: Database, metrics: Metrics, *, loop: IndexerLoop | None = None, tasks: Roster | None = None
) -> FastAPI:
    """The app. ``/readyz`` fails while the database is away, a task is down or stalled, or the mirror is halted."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        """The first connection and its catalogs take half a second: not at the first visitor's cost."""
        with suppress(DatabaseUnavailable):
            await run_in_threadpool(warm, database)
        yield

    app = FastAPI(title="Everlease explorer", version="1", docs_url="/docs", redoc_url=None, lifespan=lifespan)
    app.include_router(create_explorer_router(database))

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    def readyz(request: Request) -> Response:
        try:
            with database.transaction() as tx:
                row = mirror.cursor(tx)
        except DatabaseUnavailable as error:
            return _problem(request, 503, f"the database is away: {error}")
        if row is not None and row.halted:
            return _problem(request, 503, f"the indexer halted: {row.halted}")
        lines = tasks.lines() if tasks is not None else {}
        if tasks is not None and not tasks.ready:
            told = ", ".join(f"{name}: {line}" for name, line in lines.items() if line != "ok")
            return _problem(request, 503, f"{told} ({(loop.problem if loop is not None else '') or 'unknown'})")
        return JSONResponse({"status": "ready", "checks": lines})

    @app.get("/metrics", include_in_schema=False)
    def metrics_text() -> Response:
        metrics.observe(database)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    _install_problems(app)
    return app


def _install_problems(app: FastAPI) -> None:
    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {}

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _problem(request, error.status_code, str(error.detail))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return _problem(request, 422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")

    async def away(request: Request, error: Exception) -> Response:
        return _problem(request, 503, "the database is away; try again")

    async def refused(request: Request, error: Exception) -> Response:
        return _problem(request, 400, str(error))

    handlers |= {ValueRefused: refused, HTTPException: http, RequestValidationError: invalid, DatabaseUnavailable: away}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
