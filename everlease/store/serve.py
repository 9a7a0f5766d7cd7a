"""The block service in a process of its own: local packs, tokens by shared secret, uvicorn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from everlease.store.block_service import BlockService, ServiceLimits
from everlease.store.local import LocalBlockStore
from everlease.store.service import create_block_app
from everlease.store.sessions import SessionLedger
from everlease.store.tokens import verify_token


@dataclass(frozen=True, slots=True)
class LocalService:
    """A service over a directory, and the app that serves it. Close it when done."""

    service: BlockService
    app: Starlette
    store: LocalBlockStore
    ledger: SessionLedger

    def close(self) -> None:
        """Release the directory."""
        self.store.close()
        self.ledger.close()


def open_local_service(
    root: Path,
    token_secret: bytes,
    *,
    limits: ServiceLimits | None = None,
    clock: Callable[[], float] = time.time,
) -> LocalService:
    """Open the store in `root` (created if absent). Raises StoreLocked when another process has it."""
    store = LocalBlockStore(root)
    ledger = SessionLedger(root / "sessions.db")
    service = BlockService(store, ledger, clock, limits)
    app = create_block_app(service, lambda token: verify_token(token_secret, token, now=clock()))
    return LocalService(service, app, store, ledger)


def serve(root: Path, token_secret: bytes, *, host: str, port: int, limits: ServiceLimits | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    local = open_local_service(root, token_secret, limits=limits)
    try:
        uvicorn.run(local.app, host=host, port=port, log_level="warning", access_log=False)
    finally:
        local.close()
