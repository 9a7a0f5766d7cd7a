"""The end of an agent as its unit asks for it."""

import asyncio
import socket as unix
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provider_agent.control import control_socket
from provider_agent.installation import stop as module
from provider_agent.installation import systemd
from provider_agent.installation.errors import AgentAway

ANSWER = {"ok": True, "jobs": [{"job_id": "0x" + "ab" * 32, "still": True, "why": "no host bid for it"}]}


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """An agent's control socket in `tmp_path`; yields what it is asked."""
    requests: list[dict[str, Any]] = []
    loop, ready, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        requests.append(request)
        return ANSWER

    async def serve() -> None:
        async with control_socket(tmp_path / "agent.sock", answer):
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    yield requests
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


def test_the_agent_is_asked_once_and_what_is_left_is_named(
    tmp_path: Path, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main([str(tmp_path), "90", "everlease-agent.service"]) == 0

    assert asked == [{"command": "stop", "within_s": 90.0, "reason": module.REASON}]
    assert capsys.readouterr().out == "jobs that are still here: 0xabababab (no host bid for it)\n"


def test_a_restart_moves_nothing_and_is_announced(
    tmp_path: Path, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "systemctl"
    listed.write_text("#!/bin/sh\necho 7 everlease-agent.service restart running\n")
    listed.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert systemd.restarting("everlease-agent.service")
    assert module.main([str(tmp_path), "90", "everlease-agent.service"]) == 0

    assert asked == [{"command": "restart"}], "the market hears of it from the agent"
    assert capsys.readouterr().out == "a restart: the jobs stay and go on\n"


@pytest.mark.parametrize("there", ["nobody", "hangs"])
def test_a_restart_of_an_agent_that_does_not_answer_goes_on_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    monkeypatch.setattr(module.systemd, "restarting", lambda unit: True)
    with unix.socket(unix.AF_UNIX) as silent:
        if there == "hangs":
            silent.bind(str(tmp_path / "agent.sock"))
            silent.listen()
        began = time.monotonic()
        assert module.main([str(tmp_path), "90", "everlease-agent.service"]) == 0
    assert time.monotonic() - began < module.TOLD_S + 2
    assert "the market was not told" in capsys.readouterr().out


def test_without_an_agent_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(AgentAway, match="is it running on this host"):
        module.stop(tmp_path, 1)
