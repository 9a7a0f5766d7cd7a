"""``python -m recovery.monitor``: liveness monitor, outbox relay and receipts, each in a supervised thread."""

import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from everlease.db import Database, gateways, outbox
from everlease.db.engine import DatabaseUnavailable
from everlease.db.notify import listen
from everlease.db.timers import Watch, hold_watch
from everlease.supervision import Alive, ThreadSupervisor
from recovery import logs, receipts, watch
from recovery.apply import Desk
from recovery.broker import make_app
from recovery.health import serve_health
from recovery.relay import BrokerUnavailable, CeleryOutlet, Relay
from recovery.runtime import Runtime, build
from recovery.settings import RecoverySettings

log = structlog.get_logger()

WATCH_KEY = 0x6576_6572_6C65_6173
"""PostgreSQL advisory lock of the one active monitor ("everleas")."""
TICK_S = 0.2
SILENT_AT_MOST_S = 60.0
"""Longer than a lost database keeps a thread waiting for a connection."""
LONGEST_TICK_S = 1.0
"""A tick that comes later than this after the one before means that we ourselves were stopped."""


class Attention:
    """Since when the monitor has been watching without a pause or a jump of the clock (unix seconds)."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._last: tuple[float, float] | None = None

    def tick(self, now: float, monotonic: float) -> float:
        """Note a tick at ``now``; returns since when the watch is unbroken."""
        if self._last is not None:
            elapsed, passed = now - self._last[0], monotonic - self._last[1]
            if max(elapsed, passed) > LONGEST_TICK_S or elapsed < 0:
                log.warning("monitor.paused", seconds=round(max(elapsed, passed), 3))
                self.since = now
        self.since = now if self.since is None else self.since
        self._last = (now, monotonic)
        return self.since

    def lost(self) -> None:
        """The watch was broken off: nothing before now counts."""
        self.since = self._last = None


class Monitor:
    """Ticks while it holds the watch; ``desk`` does what a loss asks for."""

    def __init__(self, desk: Desk, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._desk = desk
        self._monotonic = monotonic
        self._attention = Attention()
        self._absences = watch.Absences()
        self._outages = watch.Outages(monotonic)

    def tick(self, hold: Watch) -> int:
        """Look once; returns how many awards ended. Raises DatabaseUnavailable."""
        now = hold.now()
        since = self._attention.tick(now, self._monotonic())
        policy = self._desk.policy.liveness
        with self._desk.database.transaction() as tx:
            if severed := gateways.sever_orphans(tx):
                log.warning("monitor.gateway_gone", nodes=severed)
            watch.excuse(tx, ours=self._outages.database_was_away)
            self._outages.note(tx, now)
            deaf = watch.deaf(tx, now, policy)
            lost = [] if deaf else watch.look(tx, now, since, policy)
            missing = [] if deaf else self._absences.note(watch.unreported(tx, now), now)
        self._outages.database_there()
        if deaf:
            self._look_away()
            return 0
        return watch.declare(self._desk, lost) + watch.declare_absent(self._desk, missing)

    def _look_away(self) -> None:
        self._attention.lost()
        self._absences = watch.Absences()

    def run(self, stop: threading.Event, wake: threading.Event, alive: Alive) -> None:
        """Wait for the watch, tick five times a second and whenever woken, survive restarts of the database."""
        while not stop.is_set():
            self._look_away()
            alive()
            try:
                with hold_watch(self._desk.database, WATCH_KEY) as hold:
                    if hold is None:
                        self._outages.database_there()
                    while hold is not None and not stop.is_set():
                        alive()
                        self.tick(hold)
                        wake.wait(TICK_S)
                        wake.clear()
            except DatabaseUnavailable as error:
                self._outages.database_away()
                log.warning("monitor.no_database", error=str(error))
            stop.wait(1.0)


def run_relay(relay: Relay, stop: threading.Event, wake: threading.Event, alive: Alive) -> None:
    """Forward until stopped; what fails stays in the outbox and is tried again."""
    pause = TICK_S
    while not stop.is_set():
        alive()
        try:
            relay.wake_due()
            pause = TICK_S if relay.forward() == 0 else 0.0
        except (BrokerUnavailable, DatabaseUnavailable) as error:
            log.warning("relay.waiting", error=str(error))
            pause = min(max(pause, TICK_S) * 2, 5.0)
            stop.wait(pause)
            continue
        wake.wait(pause)
        wake.clear()


def run_receipts(desk: Desk, every_s: float, stop: threading.Event, alive: Alive) -> None:
    """Sign receipts every ``every_s`` seconds."""
    while not stop.wait(every_s):
        alive()
        try:
            receipts.sign_all(desk.database, desk.watcher, desk.clock)
        except DatabaseUnavailable as error:
            log.warning("receipts.waiting", error=str(error))


def run(runtime: Runtime, stop: threading.Event) -> None:
    """All of them until ``stop``; one that ends before is started again."""
    settings, desk = runtime.settings, runtime.desk
    seen, moved = threading.Event(), threading.Event()
    relay = Relay(desk.database, CeleryOutlet(make_app(settings)), desk.clock)
    threads = ThreadSupervisor(stop, _report)
    works: dict[str, Callable[[Alive], None]] = {
        "monitor": lambda alive: Monitor(desk).run(stop, seen, alive),
        "relay": lambda alive: run_relay(relay, stop, moved, alive),
        "receipts": lambda alive: run_receipts(desk, settings.receipt_every, stop, alive),
        "listener": lambda alive: _listen(desk.database, stop, seen, moved, alive),
    }
    for name, work in works.items():
        threads.start(name, work, silent_at_most_s=SILENT_AT_MOST_S)
    if settings.health_port:
        threads.start(
            "health",
            lambda alive: serve_health(settings, desk.database, threads.roster, stop, alive),
            silent_at_most_s=SILENT_AT_MOST_S,
        )
    stop.wait()
    threads.join()


def _report(task: str, what: str, error: BaseException | None) -> None:
    log.error("monitor.thread", thread=task, what=what, exc_info=error)


def _listen(
    database: Database, stop: threading.Event, seen: threading.Event, moved: threading.Event, alive: Alive
) -> None:
    for heard in listen(database.libpq_url, [outbox.CHANNEL], tick_s=TICK_S):
        if stop.is_set():
            return
        alive()
        moved.set()
        if heard.payload == "node.disconnected":
            seen.set()


def main() -> None:
    """Entry point; ends on SIGTERM or SIGINT."""
    settings = RecoverySettings()
    logs.configure(settings.log_level, as_json=settings.log_json)
    runtime = build(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("monitor.started", watcher=runtime.desk.watcher.address, at=datetime.now(UTC).isoformat())
    try:
        run(runtime, stop)
    finally:
        runtime.close()


if __name__ == "__main__":
    main()
