"""The guards' units, with programs in place of systemd's that write down what they are asked."""

from pathlib import Path

import pytest

from provider_agent import keeper
from provider_agent.cgroups import Layout

NAME = "ab" * 32
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{log}
case "$*" in
*ActiveState*) echo activating ;;
*ExecStart*) echo "{{ path=/usr/bin/python3 ; argv[]=/usr/bin/python3 -I -S {runs} /f ; ignore_errors=no }}" ;;
esac
"""


@pytest.mark.parametrize(("runs", "stopped"), [("/s/code/old/guard.py", True), ("/s/code/new/guard.py", False)])
def test_a_unit_of_an_earlier_version_is_replaced(
    runs: str, stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, tools = tmp_path / "log", tmp_path / "bin"
    tools.mkdir()
    for name, text in (
        ("systemctl", SYSTEMCTL.format(log=log, runs=runs)),
        ("systemd-run", f"#!/bin/sh\necho run >>{log}\n"),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    (tmp_path / "guard.env").write_text("python=/usr/bin/python3\nguard=/s/code/new/guard.py\n")
    keeper.SystemdKeeper(Layout("everlease", True, 2)).start(NAME, tmp_path)
    asked = log.read_text().splitlines()
    assert (f"stop everlease-guard-{NAME[:12]}.service" in asked) is stopped
    assert asked[-1] == "run"
