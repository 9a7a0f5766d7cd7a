"""What is kept of launches that are under way, and who may go on with one."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from everlease.cli.launches import Launch, Launches, content_of
from everlease.wire.jobfile import JobFile
from everlease.wire.terms import OrderModel

ESCROW = "0x" + "e5" * 20


def launch(number: int, what: str = "a", escrow: str = ESCROW) -> Launch:
    order = OrderModel(
        tenant="0x" + "11" * 20, watcher="0x" + "22" * 20, job_spec="0x" + "5b" * 32, max_rate_per_hour=1, deposit=1,
        min_collateral=1, max_silence=5, max_epochs=1, epoch_fee=1, deadline=1, nonce=2**255 + number,
    )  # fmt: skip
    return Launch(
        job_id=f"0x{number:064x}", escrow=escrow, order=order, what=what, source="job.yaml", begun=float(number)
    )


def test_one_that_runs_is_seen_and_not_taken_over(tmp_path: Path) -> None:
    mine, others = Launches(tmp_path / "launches"), Launches(tmp_path / "launches")
    running = mine.begin(launch(1))
    assert others.noted(ESCROW) == [launch(1)]
    assert others.hold(launch(1)) is None
    running.release()
    taken = others.hold(launch(1))
    assert taken is not None
    assert (taken.order.nonce, taken.job_id) == (2**255 + 1, launch(1).job_id)
    assert mine.hold(launch(1)) is None


def test_looking_at_some_makes_none_seem_to_run(tmp_path: Path) -> None:
    mine, others = Launches(tmp_path), Launches(tmp_path)
    for number in (2, 1, 3):
        mine.begin(launch(number)).release()
    seen = mine.noted(ESCROW)
    assert [it.job_id for it in seen] == [launch(number).job_id for number in (1, 2, 3)], "oldest first"
    assert mine.hold(seen[0]) is not None
    assert others.hold(seen[1]) is not None


def test_what_is_done_is_gone_also_for_who_was_about_to_take_it(tmp_path: Path) -> None:
    launches = Launches(tmp_path)
    held = launches.begin(launch(1))
    seen = launches.noted(ESCROW)
    held.done()
    assert launches.hold(seen[0]) is None
    assert list(tmp_path.iterdir()) == []
    launches.forget(launch(1).job_id)
    assert list(tmp_path.iterdir()) == []


def test_other_contracts_launches_are_not_told(tmp_path: Path) -> None:
    launches = Launches(tmp_path)
    launches.begin(launch(1, escrow="0x" + "ee" * 20)).release()
    assert launches.noted(ESCROW) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"job_id": "0x1"}'])
def test_a_damaged_one_is_no_launch(tmp_path: Path, content: bytes) -> None:
    launches = Launches(tmp_path)
    launches.begin(launch(1)).release()
    (tmp_path / f"{launch(2).job_id}.json").write_bytes(content)
    assert launches.noted(ESCROW) == [launch(1)]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("everlease.cli.launches.os.write", full)
        with pytest.raises(OSError, match="No space left"):
            Launches(tmp_path).begin(launch(1))
    assert list(tmp_path.iterdir()) == []
    Launches(tmp_path).begin(launch(1)).done()


RUNS = """
import sys, time
from pathlib import Path
from everlease.cli.launches import Launch, Launches
held = Launches(Path(sys.argv[1])).begin(Launch.model_validate_json(sys.argv[2]))
print("running", flush=True)
time.sleep(60)
"""


def test_the_launch_of_a_process_that_is_killed_broke_off(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", RUNS, str(tmp_path), launch(1).model_dump_json()]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        assert Launches(tmp_path).hold(launch(1)) is None
        os.kill(process.pid, signal.SIGKILL)
    assert Launches(tmp_path).hold(launch(1)) is not None
    assert (tmp_path / f"{launch(1).job_id}.json").stat().st_mode & 0o777 == 0o600


def test_content_is_the_jobs_and_its_images_not_the_files_spelling() -> None:
    job = JobFile(name="a", image="b", max_price_per_hour="0.5", deposit="1")  # type: ignore[arg-type]
    same = JobFile(name="a", image="b", max_price_per_hour="0.50", deposit=1, lifetime="7d")  # type: ignore[arg-type]
    other = JobFile(name="a", image="b", max_price_per_hour="0.51", deposit="1")  # type: ignore[arg-type]
    assert content_of(job, "sha256:1") == content_of(same, "sha256:1")
    assert len({content_of(job, "sha256:1"), content_of(job, "sha256:2"), content_of(other, "sha256:1")}) == 3
