"""`make hosts`: the product on real hosts in virtual machines, scenario by scenario.

HOSTS=debian13,…   kinds of host (default: those of `make hosts`)      ONLY=reboot,…   scenarios
KEEP=1             leave markets and guests running for the next call  --all           the full list, resumed
LANES=1            columns of the table at once (default: 2)           --stop          what KEEP=1 or a kill left
"""

import argparse
import contextlib
import os
import signal
import sys
import time
import traceback
from types import FrameType

from everlease.stack.errors import StackError
from hosts import core, full, greedy, inside  # noqa: F401 - they register their scenarios
from hosts.guest import Guest, GuestError
from hosts.images import BUILD, ROOT, BuildFailed
from hosts.kinds import KINDS
from hosts.lanes import Column, Lanes, kinds_of
from hosts.market import BenchMarket, Stuck
from hosts.mirror import Mirror
from hosts.reference import reference
from hosts.registry import SCENARIOS, Scenario
from hosts.report import Report
from hosts.stage import Broken, Stage
from hosts.wheels import digest, wheelhouse

HOME = ROOT / ".everlease" / "hosts"
USUAL = ("debian12-6.1", "debian12-6.12", "debian13")
FULL_ON = ("debian12-6.1",)
MARKETS = HOME / "markets"
"""A market for each column: what one column does to its hosts, no other column's jobs see."""


def plan(*, everything: bool) -> list[Column]:
    """The columns in the order of playing."""
    kinds = [name for name in os.environ.get("HOSTS", "").split(",") if name] or list(USUAL)
    only = {name for name in os.environ.get("ONLY", "").split(",") if name}
    unknown = sorted((set(kinds) - set(KINDS)) | (only - set(SCENARIOS)))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; hosts {', '.join(KINDS)}; scenarios {', '.join(SCENARIOS)}")
    chosen = [item for item in SCENARIOS.values() if item.name in only or (not only and (item.core or everything))]
    columns: list[Column] = []
    for kind in kinds:
        alone = [item for item in chosen if item.kinds is None and (item.core or only or kind in FULL_ON)]
        columns.append((kind, alone))
    for pair in dict.fromkeys(item.kinds for item in chosen if item.kinds is not None):
        columns.append(("+".join(pair), [item for item in chosen if item.kinds == pair]))
    return [(column, scenarios) for column, scenarios in columns if scenarios]


def play(stage: Stage, item: Scenario) -> tuple[bool, str]:
    """One scenario on hosts that are ready; whether every promise held, and a note."""
    ok = False
    try:
        stage.open()
        note = item.play(stage)
        ok = True
        return True, note
    except Broken as error:
        return False, str(error)
    except Exception as error:  # the next scenario is played whatever became of this one
        if not isinstance(error, Stuck | GuestError):
            traceback.print_exc()
        return False, f"{type(error).__name__}: {error}"
    finally:
        try:
            stage.end(ok=ok)
        except Exception as error:
            print(f"  (the job could not be cancelled: {error})", flush=True)


def stop() -> None:
    """Stop and delete the markets and the guests that a call with KEEP=1, or one that was killed, left."""
    for folder in (BUILD / "guests", BUILD / "single"):
        for guest in folder.glob("*"):
            Guest(guest.name, guest).remove()
    for home in MARKETS.glob("*"):
        BenchMarket(ROOT, home).forget()


def interrupted(number: int, frame: FrameType | None) -> None:
    """SIGINT and SIGTERM: lanes wait for guests for minutes, so the process ends at once, and leaves the guests where
    KEEP=1 asks for that. Else another program takes its place first: a lane that still ran would boot them anew.
    """
    if os.environ.get("KEEP") == "1":
        os._exit(128 + number)
    os.execv(sys.executable, [sys.executable, "-m", "hosts.main", "--stop", str(128 + number)])


def main() -> int:
    """Exit code 0 when everything that was played held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--stop", nargs="?", type=int, const=0, metavar="CODE", help="and end with this exit code")
    chosen = parser.parse_args()
    if chosen.stop is not None:
        stop()
        return int(chosen.stop)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    keep, began = os.environ.get("KEEP") == "1", time.monotonic()
    columns = plan(everything=chosen.all)
    report = Report(HOME / "report.json", digest(), fresh=not chosen.all and not os.environ.get("ONLY"))
    mirror = Mirror(wheelhouse())

    def column(name: str, scenarios: list[Scenario]) -> None:
        left = [item for item in scenarios if not (chosen.all and report.passed(item.name, name))]
        if left:
            _column(mirror, name, left, report, keep=keep)

    try:
        reference()
        Lanes(columns, int(os.environ.get("LANES", "2")), column).run()
    except (StackError, BuildFailed, GuestError) as error:
        print(f"the bench could not go on: {error}", file=sys.stderr)
        return 2
    finally:
        mirror.close()
    print(f"{report.summary()} in {(time.monotonic() - began) / 60:.0f} min: {HOME / 'report.json'}")
    return 0 if report.all_ok() else 1


def _column(mirror: Mirror, column: str, scenarios: list[Scenario], report: Report, *, keep: bool) -> None:
    market, kinds = BenchMarket(ROOT, MARKETS / column), kinds_of(column)
    market.up(lambda text: print(f"  {column}: {text}", flush=True), keep=keep)
    try:
        stage = Stage(market, mirror, (KINDS[kinds[0]], KINDS[kinds[-1]]))
        try:
            for item in scenarios:
                _score(stage, column, item, report, keep=keep)
        finally:
            with contextlib.suppress(Exception):
                stage.finish()
            if not keep:
                stage.close()
    finally:
        if not keep:
            market.down()


def _score(stage: Stage, column: str, item: Scenario, report: Report, *, keep: bool) -> None:
    began = time.monotonic()
    ok, note = play(stage, item)
    seconds = time.monotonic() - began
    report.add(item.name, column, ok=ok, seconds=seconds, note=note)
    print(f"{'ok  ' if ok else 'FAIL'} {item.name:22} {column:16} {seconds:5.0f} s  {note}", flush=True)
    if not ok:
        stage.save_logs(HOME / "logs" / f"{item.name}-{column}")
        if not keep:
            stage.close()  # what a broken scenario left behind must not break the next one


if __name__ == "__main__":
    BUILD.mkdir(parents=True, exist_ok=True)
    sys.exit(main())
