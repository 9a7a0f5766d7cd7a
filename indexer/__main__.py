"""``python -m indexer [run]`` follows the chain and serves the explorer. ``rebuild`` forgets the mirror,
``resume`` takes a halt back.

Settings come from the environment (EVERLEASE_INDEXER_…); ``--settings FILE`` reads them from a file of such lines.
"""

import argparse
import gc
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
import uvicorn

from everlease.chain.deployment import Deployment
from everlease.chain.errors import ChainError
from everlease.chain.heads import HeadWaiter
from everlease.chain.rpc import RpcChain
from everlease.db import Database, migrate, mirror
from everlease.supervision import Alive, ThreadSupervisor
from indexer.app import Metrics, create_app
from indexer.follower import Follower
from indexer.service import GC_THRESHOLD, IndexerLoop
from indexer.settings import IndexerSettings

_log = structlog.get_logger("indexer")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code (0 stopped, 1 it could not go on)."""
    parser = argparse.ArgumentParser(prog="python -m indexer", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["run", "rebuild", "resume"], default="run")
    parser.add_argument("--settings", type=Path, help="file with EVERLEASE_INDEXER_… lines")
    chosen = parser.parse_args(arguments)
    settings = IndexerSettings(_env_file=chosen.settings)
    _configure_logs(settings)
    url = settings.database_url.get_secret_value()
    migrate.upgrade(url)
    database = Database(url)
    if chosen.command == "rebuild":
        with database.transaction() as tx:
            mirror.clear(tx)
        _log.info("mirror cleared; the next run reads the chain again")
        return 0
    if chosen.command == "resume":
        with database.transaction() as tx:
            mirror.resume(tx)
        _log.info("the halt is taken back; the next run goes on where it stopped")
        return 0
    return serve(settings, database)


def serve(settings: IndexerSettings, database: Database) -> int:
    """Run loop and HTTP until a signal, or until the loop can't go on."""
    gc.set_threshold(GC_THRESHOLD)
    deployment = Deployment.load(settings.deployments)
    chain = RpcChain.connect(settings.rpc_urls, chain_id=deployment.chain_id)
    try:
        deployment.check_if_reachable(chain)
    except ChainError as error:
        _log.critical("stopped", problem=str(error))
        return 1
    stopping = threading.Event()
    threads = ThreadSupervisor(stopping, _report)
    metrics = Metrics(threads.roster)
    executor = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    follower = Follower(
        chain,
        deployment,
        database,
        finality_depth=settings.finality_depth,
        executor=executor,
        on_step=metrics.step,
    )
    loop = IndexerLoop(follower, HeadWaiter(settings.ws_url or None, poll_s=settings.poll_s), stopping)
    app = create_app(database, metrics, loop=loop, tasks=threads.roster)
    server = uvicorn.Server(
        uvicorn.Config(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)
    )
    failures: list[BaseException] = []

    def follow(alive: Alive) -> None:
        try:
            loop.run(alive)
        except Exception as error:
            if getattr(error, "retryable", None) is not False:
                raise
            # What it says of itself no new try can heal: people must look.
            _log.critical("stopped", problem=str(error))
            failures.append(error)
            stopping.set()
            server.should_exit = True

    threads.start("follower", follow, silent_at_most_s=settings.stale_after_s)
    try:
        server.run()
    finally:
        stopping.set()
        threads.join()
        executor.shutdown(cancel_futures=True)
        chain.close()
        database.close()
    return 1 if failures else 0


def _report(task: str, what: str, error: BaseException | None) -> None:
    _log.error("background thread", task=task, what=what, exc_info=error)


def _configure_logs(settings: IndexerSettings) -> None:
    renderer = structlog.processors.JSONRenderer() if settings.log_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
