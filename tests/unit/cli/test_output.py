"""Strangers' words on a terminal: what a host or a service says is shown as it is, and moves no cursor."""

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest

from everlease.cli import explorer, follow, job, output
from everlease.cli.config import Config
from everlease.cli.context import Context
from everlease.wire.http import CheckpointList, EventOut, JobOut, LeaseList, LimitsOut, LogOut
from tests.unit.cli.test_job_money import MINE, Lying, signed

HOSTILE = "[/opt/x] [bold]b[/bold] [link=http://x]y[/link] :bomb: \x1b]0;title\x07\x1b[2J\x9b1A\r\u202eback\ud800"
SHOWN = re.sub("[\x00-\x1f\x9b\u202e\ud800]", "\N{REPLACEMENT CHARACTER}", HOSTILE)
STYLES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal gets."""
    written = io.StringIO()
    monkeypatch.setattr(output.console, "file", written)
    monkeypatch.setattr(output.console, "_force_terminal", True)
    monkeypatch.setattr(output.console, "_width", 2000)
    return written


def text_of(screen: io.StringIO) -> str:
    return STYLES.sub("", screen.getvalue())


def show(found: JobOut) -> None:
    """`job show` of this job."""
    market: Any = Lying(found, found)
    answers = {"leases": LeaseList(items=[]), "checkpoints": CheckpointList(items=[], next_cursor=None)}
    alone = market.get
    market.get = lambda path, *a, **b: answers.get(path.rsplit("/", 1)[-1]) or alone(path, *a, **b)
    context = Context(Config())
    context.__dict__.update(market=market)
    ctx: Any = SimpleNamespace(find_root=lambda: SimpleNamespace(obj=context))
    job.show(ctx, found.id)


def test_facts_tables_sentences_and_styled_text_print_what_is_said(screen: io.StringIO) -> None:
    output.facts([("state", f"PARKED  {HOSTILE}\nhost  0xfake")])
    output.table(("REASON",), [(HOSTILE,)], empty="")
    output.table(("REASON",), [], empty=HOSTILE)
    output.done(False, {}, HOSTILE)
    output.console.print(output.styled((HOSTILE, "bold"), HOSTILE))
    shown = text_of(screen)
    assert shown.count(SHOWN) == 6
    assert f"PARKED  {SHOWN} host  0xfake" in shown, "what a host says can't pass for another line"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)


def test_what_a_host_says_breaks_neither_show_nor_events(screen: io.StringIO) -> None:
    show(signed(MINE, 1).model_copy(update={"reason": HOSTILE}))
    data = {"from": "RUNNING", "to": "[/x]", "reason": "[/opt/x] \x1b[2J\nforged line", "seconds": 1.5}
    follow._show_event(EventOut(id=1, at=0.0, kind="job.[/x]\x1b[2J", data=data), quiet=False, as_json=False)
    shown = text_of(screen)
    assert SHOWN in shown
    assert "job.[/x]\ufffd[2J" in shown
    assert "RUNNING → [/x] reason=[/opt/x] \ufffd[2J forged line seconds=1.50" in shown


def test_show_tells_what_resume_and_extend_ask_about(screen: io.StringIO) -> None:
    limits = LimitsOut(deadline=1_800_000_000, leases=7, max_leases=20, max_rate_per_hour=1_500_000)
    show(signed(MINE, 1).model_copy(update={"limits": limits, "wish": "migrate"}))
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in text_of(screen).splitlines() if "  " in line)
    assert shown["asked to"] == "migrate"
    assert shown["leases"] == "7 of 20"
    assert shown["may live until"] == output.clock(1_800_000_000)
    assert shown["pays at most"] == "$1.50 an hour"


def test_the_explorers_answers_are_shown_as_they_are(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    context: Any = SimpleNamespace(explorer=lambda path, **_: {"items": [{"name": HOSTILE}], "next": HOSTILE})
    monkeypatch.setattr(explorer, "of", lambda ctx: context)
    ctx: Any = None
    explorer._page(ctx, "events", ("name",), as_json=False, limit=1, cursor=None)
    explorer._document(ctx, "jobs/x", as_json=False)
    shown = text_of(screen)
    assert shown.count(SHOWN) == 2
    assert "\\u001b]0;title" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_log_colours_its_lines_on_a_terminal_and_does_no_more_there(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    monkeypatch.setattr(follow.sys, "stdout", out)
    said = "\x1b[1;32mdone\x1b[0m 5 %\r\x1b]52;c;aGk=\x07\x1b[2J\n"
    follow._show_log(LogOut.model_construct(id=1, stream="stdout", text=said), as_json=False)
    kept = "\x1b[1;32mdone\x1b[0m 5 %\r\ufffd]52;c;aGk=\ufffd\ufffd[2J\n"
    assert out.getvalue() == (kept if terminal else said), "a file gets the bytes that the job printed"
