"""Which jobs hold an uninstallation up."""

import socket as unix
from pathlib import Path

import pytest

from everlease.wire.commands import Prepare
from provider_agent.installation import leftovers
from provider_agent.installation.errors import HostRefused
from provider_agent.journal import Journal
from provider_agent.records import JobRecord, PendingCheckpoint

JOB = "0x" + "ab" * 32
PENDING = PendingCheckpoint(seq=1, request="r", folder="f")


def record(**changes: object) -> JobRecord:
    prepare = Prepare(job_id=JOB, fence=1, step="prepare/1", spec={}, store_token="t")
    return JobRecord(job_id=JOB, fence=1, phase="running", prepare=prepare).model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "over"),
    [
        ({}, False),
        ({"phase": "held"}, False),
        ({"phase": "starting"}, False),
        ({"phase": "held", "leaving": True}, False),
        ({"phase": "held", "leaving": True, "pending": PENDING}, False),
        ({"phase": "held", "leaving": True, "goodbye": True}, True),
        ({"phase": "held", "leaving": True, "goodbye": True, "pending": PENDING}, True),
        ({"phase": "prepared"}, True),
        ({"phase": "exited"}, False),
        ({"phase": "exited", "exit_reported": True}, True),
    ],
)
def test_a_job_is_over_when_the_market_heard_how_it_was_left_or_ended_or_it_never_began(
    changes: dict[str, object], over: bool
) -> None:
    assert leftovers.over(record(**changes)) == over


def test_the_end_of_a_job_that_waits_in_the_outbox_is_not_told_yet(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.put_job(record(phase="exited", exit_reported=True))
    journal.post("notice", {"type": "notice", "job_id": JOB, "kind": "exited"})
    assert leftovers.unfinished(tmp_path / "journal.db") == {JOB}

    journal.acknowledged(["notice"])
    assert leftovers.unfinished(tmp_path / "journal.db") == set()
    journal.close()


@pytest.mark.parametrize("listens", [None, False])
def test_without_docker_nothing_is_taken_down_unless_forced(tmp_path: Path, listens: bool | None) -> None:
    path = tmp_path / "docker.sock"
    if listens is False:
        with unix.socket(unix.AF_UNIX) as dead:
            dead.bind(str(path))

    with pytest.raises(HostRefused, match="--force"):
        leftovers.engine_of(tmp_path, path, force=False)

    assert leftovers.engine_of(tmp_path, path, force=True) is None
