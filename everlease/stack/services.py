"""The services of the embedded profile: command lines, settings by environment, and how each says that it is ready."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from everlease.stack.ports import free_port
from everlease.stack.processes import ProcessRecord, ProcessTable

READY_S = 90.0


def environment(prefix: str, settings: Mapping[str, object]) -> dict[str, str]:
    """Settings as the services read them: EVERLEASE_<PREFIX>_<NAME>; lists as JSON."""
    return {
        f"EVERLEASE_{prefix}_{name.upper()}": json.dumps(value) if isinstance(value, list) else str(value)
        for name, value in settings.items()
        if value is not None
    }


def answers(url: str) -> bool:
    """Whether a readiness endpoint says yes."""
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


class Services:
    """Starts the Python services of one stack. ``common``: deployments, rpc_urls, database_url for all of them."""

    def __init__(self, table: ProcessTable, root: Path, host: str, common: Mapping[str, object]) -> None:
        self._table, self._root, self._host, self._common = table, root, host, common
        self._waiting: list[tuple[ProcessRecord, Callable[[], bool]]] = []

    def indexer(self) -> str:
        """Start the mirror and its explorer API; returns the API's URL."""
        port = free_port(self._host)
        url = f"http://{self._host}:{port}"
        ws_url = str(self._common["rpc_urls"][0]).replace("http", "ws", 1)  # type: ignore[index]
        settings = {**self._common, "host": self._host, "port": port, "ws_url": ws_url}
        record = self._python("indexer", "-m", "indexer", env=environment("INDEXER", settings))
        self._waiting.append((record, lambda: answers(f"{url}/readyz")))
        return url

    def marketplace(self, settings: Mapping[str, object]) -> str:
        """Start API, gateway, key service and block store; returns the URL."""
        port = free_port(self._host)
        url = f"http://{self._host}:{port}"
        merged = {**self._common, **settings, "host": self._host, "port": port, "public_url": url}
        record = self._python("marketplace", "-m", "marketplace", env=environment("MARKETPLACE", merged))
        self._waiting.append((record, lambda: answers(f"{url}/readyz")))
        return url

    def recovery(self, settings: Mapping[str, object]) -> None:
        """Start monitor, worker and beat. The worker uses threads: its tasks wait for PostgreSQL, not for a CPU."""
        env = environment("RECOVERY", {**self._common, **settings})
        celery = ("-m", "celery", "-A", "recovery.app")
        worker = self._python(
            "worker", *celery, "worker", "--pool", "threads", "--concurrency", "4", "--loglevel", "INFO",
            "--without-gossip", "--without-mingle", "--hostname", f"worker@{self._host}", env=env,
        )  # fmt: skip
        self._python(
            "beat", *celery, "beat", "--loglevel", "INFO", "--pidfile=",
            "--schedule", str(self._table.folder / "beat-schedule"), env=env,
        )  # fmt: skip
        self._python("monitor", "-m", "recovery.monitor", env=env)
        self._waiting.append((worker, lambda: "ready." in Path(worker.log).read_text(errors="replace")))

    def await_ready(self) -> None:
        """Wait for all that was started. Raises NotReady."""
        while self._waiting:
            record, check = self._waiting.pop(0)
            self._table.await_ready(record, check, timeout=READY_S)

    def _python(self, name: str, *words: str, env: Mapping[str, str]) -> ProcessRecord:
        return self._table.start(name, [sys.executable, *words], env=env, cwd=self._root)
