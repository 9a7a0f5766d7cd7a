"""Signing in, and what the marketplace's refusals mean."""

import threading
from pathlib import Path

import httpx
import pytest

from everlease.cli.errors import ExitCode, from_problem
from everlease.cli.market import TokenCache


def test_a_wait_for_another_sign_in_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    first, second = TokenCache(tmp_path / "tokens.json"), TokenCache(tmp_path / "tokens.json", told.append)
    with second.turn():
        assert told == []
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with first.turn():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    threading.Timer(0.2, leave.set).start()
    with second.turn():
        thread.join()
    assert told == ["another command is signing in: waiting for it"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (302, ExitCode.UNAVAILABLE),
        (400, ExitCode.INVALID),
        (401, ExitCode.REFUSED),
        (408, ExitCode.UNAVAILABLE),
        (429, ExitCode.UNAVAILABLE),
        (500, ExitCode.UNAVAILABLE),
    ],
)
def test_a_status_tells_the_exit_code(status: int, code: ExitCode) -> None:
    error = from_problem(httpx.Response(status, json={"title": "no"}))
    assert (error.code, error.status) == (code, status)
