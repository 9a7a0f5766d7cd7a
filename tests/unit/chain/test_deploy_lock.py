"""The lock of a deployments file, held and lost by real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from everlease.chain.deploy_lock import DeploymentRuns, only_one
from everlease.chain.deployment import NotWritten

HOLDS = """
import sys, time
from pathlib import Path
from everlease.chain.deploy_lock import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
CONTENDS = """
import sys, time
from pathlib import Path
from everlease.chain.deploy_lock import DeploymentRuns, only_one
out, inside, times, deadline = Path(sys.argv[1]), Path(sys.argv[1]).with_name("inside"), 0, time.monotonic() + 2
while time.monotonic() < deadline:
    try:
        with only_one(out):
            inside.touch(exist_ok=False)
            inside.unlink()
            times += 1
    except DeploymentRuns:
        pass
print(times)
"""


def start(program: str, out: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    out = tmp_path / "deployments.json"
    with start(HOLDS, out) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(DeploymentRuns, match=r"another deployment to .*/deployments\.json is running"),
                only_one(out),
            ):
                pass
            with only_one(tmp_path / "others.json"):
                pass
        finally:
            holder.kill()
    assert (tmp_path / "deployments.json.lock").exists(), "it was killed"
    with only_one(out):
        for _ in range(2):  # a refusal leaves the lock where it is
            with pytest.raises(DeploymentRuns), only_one(out):
                pass
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_take_and_remove_it_one_holds_it(tmp_path: Path) -> None:
    """The file goes with each holder, so some lock one that is there no more."""
    runs = [start(CONTENDS, tmp_path / "deployments.json") for _ in range(4)]
    found = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4
    assert sum(map(int, found)) > 100


def test_where_it_cannot_be_made_the_cause_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "deployments.json"
    with pytest.raises(NotWritten, match=r"deployments\.json\.lock can't be written: File exists"), only_one(out):
        pass
