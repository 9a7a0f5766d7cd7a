"""Following a job: events and logs as they happen, across reconnects."""

import sys
import time
from typing import Any

from everlease.cli.errors import CliError, ExitCode
from everlease.cli.market import Market
from everlease.cli.output import console, emit_json_line, printable_line, printable_log, styled
from everlease.domain.job import ENDED, WAITS_FOR_RESUME, JobState
from everlease.wire.http import EventList, EventOut, JobOut, LogList, LogOut

RECONNECT_S = 1.0
_OVER = ENDED | {JobState.EXHAUSTED, JobState.HIBERNATED, JobState.PARKED}
"""States that a job does not leave without its tenant."""
_PAGE = 500


def follow_events(
    market: Market, job_id: str, *, quiet: bool, as_json: bool = False, until_now: bool = False
) -> JobOut:
    """Print the job's history and what comes, until nothing goes on (or there is no more yet); returns the job."""
    last = 0
    while True:
        last = _catch_up_events(market, job_id, last, quiet=quiet, as_json=as_json)
        job = market.get(f"/v1/jobs/{job_id}", JobOut)
        if until_now or _over(job):
            _catch_up_events(market, job_id, last, quiet=quiet, as_json=as_json)
            return job
        if _stays(job.state, job.reason):  # it was asked to resume: either it goes on soon, or that is refused
            time.sleep(RECONNECT_S)
            continue
        try:
            with market.stream(f"/v1/jobs/{job_id}/events", after=last) as arriving:
                for item in arriving:
                    event = EventOut.model_validate(item.data)
                    last = max(last, event.id)
                    _show_event(event, quiet=quiet, as_json=as_json)
                    if _stays(str(event.data.get("to")), str(event.data.get("reason"))):
                        break
        except CliError as error:
            if error.code != ExitCode.UNAVAILABLE:
                raise
            time.sleep(RECONNECT_S)


def why_over(job: JobOut) -> str:
    """Why nothing goes on, and what would change that."""
    told = f"the job is {job.state}" + (f": {job.reason}" if job.reason else "")
    if JobState(job.state) in ENDED:
        return told if job.reason else f"{told}: see its logs"
    ways = f"'everlease job resume {job.id}' lets it go on"
    if job.state == JobState.EXHAUSTED:
        ways = f"'job top-up' gives it money, 'job extend' time and leases, and {ways}"
    return f"{told}; {ways}"


def _over(job: JobOut) -> bool:
    return job.wish != "resume" and _stays(job.state, job.reason)


def _stays(state: str, reason: str) -> bool:
    held = state == JobState.WAITING_CAPACITY and reason.startswith(WAITS_FOR_RESUME)
    return held or state in _OVER


def _catch_up_events(market: Market, job_id: str, last: int, *, quiet: bool, as_json: bool) -> int:
    while True:
        page = market.get(f"/v1/jobs/{job_id}/events", EventList, params={"after": last, "limit": _PAGE})
        for event in page.items:
            last = max(last, event.id)
            _show_event(event, quiet=quiet, as_json=as_json)
        if len(page.items) < _PAGE:
            return last


def _show_event(event: EventOut, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        emit_json_line(event)
    elif not quiet:
        told = styled((clock(event.at), "dim"), f"  {printable_line(event.kind):<24} ", *describe(event.data))
        console.print(told, soft_wrap=True)


def clock(unix: float) -> str:
    """Local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(unix))


def describe(data: dict[str, Any]) -> list[str | tuple[str, str]]:
    """An event's data for people: a state change as an arrow, the rest as pairs. Parts of ``styled``."""
    shown = dict(data)
    change: list[str | tuple[str, str]] = []
    if "from" in shown and "to" in shown:
        before, after = printable_line(str(shown.pop("from"))), printable_line(str(shown.pop("to")))
        change = [f"{before} → ", (after, "bold"), " "]
    parts = []
    for key, value in shown.items():
        if value in (None, "", [], {}):
            continue
        text = f"{value:.2f}" if isinstance(value, float) else str(value)
        parts.append(f"{key}={text if len(text) <= 60 else text[:57] + '…'}")
    return [*change, printable_line(" ".join(parts))]


def print_logs(market: Market, job_id: str, *, as_json: bool, after: int = 0) -> int:
    """Everything that was printed so far; returns the last id."""
    while True:
        page = market.get(f"/v1/jobs/{job_id}/logs", LogList, params={"after": after, "limit": _PAGE})
        for piece in page.items:
            after = max(after, piece.id)
            _show_log(piece, as_json=as_json)
        if len(page.items) < _PAGE:
            return after


def follow_logs(market: Market, job_id: str, *, as_json: bool) -> int:
    """What was printed and what comes, until the job has ended; returns the last id."""
    last = print_logs(market, job_id, as_json=as_json)
    while not _over(market.get(f"/v1/jobs/{job_id}", JobOut)):
        try:
            with market.stream(f"/v1/jobs/{job_id}/logs", after=last) as arriving:
                for item in arriving:
                    piece = LogOut.model_validate(item.data)
                    if piece.id > last:
                        last = piece.id
                        _show_log(piece, as_json=as_json)
            time.sleep(RECONNECT_S)
        except CliError as error:
            if error.code != ExitCode.UNAVAILABLE:
                raise
            time.sleep(RECONNECT_S)
    return print_logs(market, job_id, as_json=as_json, after=last)


def _show_log(piece: LogOut, *, as_json: bool) -> None:
    if as_json:
        emit_json_line(piece)
        return
    out = sys.stderr if piece.stream == "stderr" else sys.stdout
    out.write(printable_log(piece.text) if out.isatty() else piece.text)
    out.flush()
