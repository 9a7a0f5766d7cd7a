"""The monitor's ``/healthz``, ``/readyz`` and ``/metrics``."""

import threading

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from everlease.db import Database
from everlease.db.engine import DatabaseUnavailable
from everlease.supervision import Alive, Roster
from everlease.supervision.prometheus import TaskCollector
from recovery.settings import RecoverySettings

_LOOK_EVERY_S = 1.0


def create_app(database: Database, roster: Roster) -> Starlette:
    """The app. ``/readyz`` fails while the database is away or a thread is down or stalled."""
    registry = CollectorRegistry()
    registry.register(TaskCollector(roster))

    def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    def readyz(_: Request) -> Response:
        checks = {"database": _database(database), **roster.lines()}
        ready = checks["database"] == "ok" and roster.ready
        return JSONResponse({"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503)

    def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


def serve_health(
    settings: RecoverySettings, database: Database, roster: Roster, stop: threading.Event, alive: Alive
) -> None:
    """Serve on the settings' host and port until ``stop``."""
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(database, roster),
            host=settings.health_host,
            port=settings.health_port,
            log_level="warning",
            access_log=False,
        )
    )
    serving = threading.Thread(target=server.run, name="health server")
    serving.start()
    while serving.is_alive() and not stop.wait(_LOOK_EVERY_S):
        alive()
    server.should_exit = True
    serving.join()


def _database(database: Database) -> str:
    try:
        database.ping()
    except DatabaseUnavailable:
        return "unavailable"
    return "ok"
