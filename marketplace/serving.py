"""How the app is served: the same settings of uvicorn for the process, for tests and for benchmarks."""

import logging
from typing import Any

import uvicorn
from fastapi import FastAPI

from everlease.wire.node import MAX_FRAME_BYTES
from marketplace.gateway.frames import NodeSocketProtocol
from marketplace.settings import MarketplaceSettings

GRACE_S = 5


def server_config(app: FastAPI, settings: MarketplaceSettings, **changes: Any) -> uvicorn.Config:
    """No compression: a few kilobytes must not become megabytes before their sender is known.

    uvicorn's own line for each connection is left out: strangers must not fill a disk.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    values: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "ws": NodeSocketProtocol,
        "ws_max_size": MAX_FRAME_BYTES,
        "ws_per_message_deflate": False,
        "ws_ping_interval": None,
        "timeout_graceful_shutdown": GRACE_S,
        "log_level": logging.DEBUG if level <= logging.DEBUG else max(level, logging.WARNING),
        "access_log": False,
        "server_header": False,
    }
    return uvicorn.Config(app, **(values | changes))
