"""`make test` as a process, with columns of tiny tests: what fails is told, nothing is left running."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 300
SCRIPTS = Path(__file__).parents[3] / "scripts"
DRIVER = """
import sys
from pathlib import Path
import check
names = sys.argv[2:]
columns = [check.column(name, f"column {name}", str(check.ROOT / name), pytest=Path(sys.argv[1])) for name in names]
sys.exit(check.run_rounds(columns[:2], columns[2:]))
"""
SERVER = """
import subprocess, time
from pathlib import Path
import pytest

FOLDER = Path(__file__).parent

@pytest.fixture(scope="session")
def server():
    with subprocess.Popen(["sleep", "600"]) as process:
        (FOLDER / "pid").write_text(str(process.pid))
        yield
        process.kill()
    (FOLDER / "stopped").touch()

def test_waits(server):
    (FOLDER / "ready").touch()
    time.sleep(600)
"""
LATE = """
import time
from pathlib import Path

def test_late():
    time.sleep(3)
    (Path(__file__).parent / "late").touch()
"""
STUBBORN = """
import signal, time
from pathlib import Path

def test_does_not_end():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (Path(__file__).parent / "ready").touch()
    time.sleep(600)
"""


class Run:
    """A copy of the scripts, whose root is the test's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scripts").mkdir()
        for name in ("check", "steps", "children"):
            shutil.copy(SCRIPTS / f"{name}.py", root / "scripts")
        (root / "scripts" / "driver.py").write_text(DRIVER)
        self.started: list[subprocess.Popen[str]] = []

    def start(self, **columns: str) -> "subprocess.Popen[str]":
        for name, source in columns.items():
            (self.root / name).mkdir()
            (self.root / name / f"test_{name}.py").write_text(source)
        argv = [sys.executable, self.root / "scripts/driver.py", Path(sys.executable).with_name("pytest"), *columns]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        return process

    def until(self, condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up, "it did not happen in time"
            time.sleep(0.05)

    def await_ready(self, *names: str) -> None:
        self.until(lambda: all((self.root / name / "ready").exists() for name in names))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    for process in run.started:
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)


def test_columns_that_pass_are_a_line_each(run: Run) -> None:
    process = run.start(one="def test_a(): pass", two="def test_b(): pass\ndef test_c(): pass")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 2
    assert any("column one" in line and "1 passed" in line for line in lines)
    assert any("column two" in line and "2 passed" in line for line in lines)


def test_a_column_that_fails_is_shown_and_the_other_runs_to_its_end(run: Run) -> None:
    process = run.start(bad="def test_bad(): assert 1 + 1 == 3", good=LATE, never=LATE)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "assert (1 + 1) == 3" in err
    assert "see .build/logs/check-bad.log" in err
    assert "assert (1 + 1) == 3" in (run.root / ".build/logs/check-bad.log").read_text()
    assert (run.root / "good" / "late").exists()
    assert "1 passed" in out
    assert not (run.root / "never" / "late").exists(), "nothing is begun after a failure"


def test_of_two_that_fail_both_are_shown(run: Run) -> None:
    process = run.start(one="def test_a(): assert 'here'.isupper()", two="def test_b(): assert 'there'.isupper()")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "'here'" in err
    assert "'there'" in err


def test_a_column_without_a_test_fails(run: Run) -> None:
    process = run.start(none="")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "no tests ran" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_columns_and_their_servers(run: Run, number: signal.Signals) -> None:
    process = run.start(one=SERVER, two=SERVER, never=SERVER)
    run.await_ready("one", "two")
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number
    assert "Interrupted" in err
    assert not (run.root / "never" / "ready").exists()
    for name in ("one", "two"):
        assert (run.root / name / "stopped").exists()
        assert not Path("/proc", (run.root / name / "pid").read_text()).exists()


def test_a_second_signal_kills_what_does_not_end(run: Run) -> None:
    process = run.start(one=STUBBORN, two=SERVER)
    run.await_ready("one", "two")
    process.send_signal(signal.SIGTERM)
    run.until((run.root / "two" / "stopped").exists)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
    process.communicate()
