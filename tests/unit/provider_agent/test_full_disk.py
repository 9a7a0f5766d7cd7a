"""The journal on a disk that is full: the agent goes on, and what it must remember it remembers."""

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from everlease.wire.commands import CommandResult
from provider_agent.journal import Journal
from tests.unit.provider_agent.test_journal import JOB, record, signed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB of its own."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, folder], check=False, capture_output=True).returncode:
        pytest.skip("no loop devices here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> None:
    with (disk / "fill").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def use(journal: Journal, rounds: int) -> None:
    """What an agent writes with a job, message after message."""
    for number in range(rounds):
        journal.put_job(record(phase="running", head_seq=number))
        journal.keep_receipt(signed(number + 1))
        journal.post(f"m{number}", {"text": "x" * 2000})
        journal.finish(CommandResult(job_id=JOB, fence=1, step=f"s{number % 50}", ok=True))
        journal.acknowledged([f"m{number}", f"result:{JOB}:s{number % 50}"])


def test_what_is_written_on_a_full_disk_is_written(disk: Path) -> None:
    journal = Journal(disk / "journal.db")
    assert journal.tidy()
    fill(disk)
    use(journal, 400)
    assert [job.head_seq for job in journal.jobs()] == [399]
    journal.close()


def test_an_agent_that_was_killed_on_a_full_disk_opens_its_journal_again(disk: Path) -> None:
    script = f"""
        import os
        from pathlib import Path
        from provider_agent.journal import Journal
        from tests.unit.provider_agent.test_full_disk import fill, use
        journal = Journal(Path({str(disk)!r}) / "journal.db")
        assert journal.tidy()
        fill(Path({str(disk)!r}))
        use(journal, 100)
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    journal = Journal(disk / "journal.db")
    use(journal, 100)
    assert [job.head_seq for job in journal.jobs()] == [99]
    journal.close()


def test_without_room_nothing_is_set_aside_and_the_journal_is_whole(disk: Path) -> None:
    journal = Journal(disk / "journal.db")
    journal.put_job(record())
    fill(disk)
    assert not journal.tidy()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        use(journal, 400)
    (disk / "fill").unlink()
    assert journal.tidy()
    use(journal, 10)
    assert [job.head_seq for job in journal.jobs()] == [9]
    journal.close()
