"""Processes are known by pid and birth: what isn't exactly ours is never signalled."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from everlease.stack.errors import NotReady
from everlease.stack.network import free_subnet, tag_of
from everlease.stack.processes import ProcessTable, birth_of

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def started(table: ProcessTable, name: str, argv: list[str]) -> None:
    record = table.start(name, argv)
    table.await_ready(record, lambda: "up" in Path(record.log).read_text(), timeout=30)


def test_a_process_outlives_its_table_and_is_stopped_by_another(tmp_path: Path) -> None:
    started(ProcessTable(tmp_path), "one", SLEEP)
    table = ProcessTable(tmp_path)
    (record,) = table.records()
    assert table.alive(record)
    table.stop_all()
    assert birth_of(record.pid) is None
    assert table.records() == []


def test_one_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path)
    started(table, "stubborn", STUBBORN)
    (record,) = table.records()
    table.stop(record, timeout=0.2)
    assert birth_of(record.pid) is None


def test_a_recycled_pid_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        time.sleep(0.1)  # births are counted in hundredths of a second
        table = ProcessTable(tmp_path)
        started(table, "ours", SLEEP)
        (record,) = table.records()
        table.stop(record)
        stale = replace(record, pid=bystander.pid)
        (tmp_path / "processes.json").write_text(json.dumps([asdict(stale)]))
        assert not table.alive(stale)
        table.stop_all()
        assert bystander.poll() is None
    finally:
        os.kill(bystander.pid, signal.SIGKILL)
        bystander.wait()


def test_a_process_that_ends_early_is_named_with_its_log(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path)
    record = table.start("brief", [sys.executable, "-c", "import time; time.sleep(0.3); print('no')"])
    with pytest.raises(NotReady, match=r"brief ended before it was ready; see .*brief\.log"):
        table.await_ready(record, lambda: False, timeout=30)


def test_settings_of_the_callers_environment_are_not_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLEASE_AGENT_CRASH_AT", "somewhere")
    table = ProcessTable(tmp_path)
    script = "import os, time; print('up', os.environ.get('EVERLEASE_AGENT_CRASH_AT'), flush=True); time.sleep(600)"
    started(table, "child", [sys.executable, "-c", script])
    assert "up None" in table.log_of("child").read_text()
    table.stop_all()


def test_a_dead_process_is_started_again_as_it_was_and_its_secrets_stay_private(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path)
    script = "import os, time; print('up', os.environ['EVERLEASE_X'], flush=True); time.sleep(600)"
    first = table.start("first", [sys.executable, "-c", script], env={"EVERLEASE_X": "secret"})
    started(table, "second", SLEEP)
    table.await_ready(first, lambda: "up secret" in table.log_of("first").read_text(), timeout=30)
    table.kill(first)
    while table.alive(first):
        time.sleep(0.01)
    again = ProcessTable(tmp_path).restart(first)
    table.await_ready(again, lambda: table.log_of("first").read_text().count("up secret") == 2, timeout=30)
    assert [record.name for record in table.records()] == ["first", "second"]
    assert table.get("first") == again
    assert "secret" not in repr(again)
    assert (tmp_path / "processes.json").stat().st_mode & 0o777 == 0o600
    table.stop_all()


def test_two_checkouts_have_two_names_and_subnets(tmp_path: Path) -> None:
    one, two = tag_of(tmp_path / "a"), tag_of(tmp_path / "b")
    assert one != two
    assert free_subnet(one) != free_subnet(two)
