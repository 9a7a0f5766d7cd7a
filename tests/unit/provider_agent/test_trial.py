"""What a trial's record is worth: with these tools, with others, and with jobs on the host."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from provider_agent import trial
from provider_agent.runtime.capability import RuntimeCapabilities
from provider_agent.runtime.checkpoint import Checkpointer
from provider_agent.runtime.container import ContainerEngine
from provider_agent.trial import TrialStep

CAPS = RuntimeCapabilities("20.10.24", "1.1.5", "4.2", "v2", True, "6.1.0", "overlay2", True, True, "")
UPDATED = replace(CAPS, docker="29.0.1")
DUMPER = cast("Checkpointer", None)
WORKS = [TrialStep("root", ""), TrialStep("another user than root", "")]
ROOT_ALONE = [TrialStep("root", ""), TrialStep("another user than root", "no limits")]
NOTHING = [TrialStep("root", "broken"), TrialStep("another user than root", "broken")]


def engine(state: Path, *jobs: str) -> ContainerEngine:
    """One with a running container of each of these jobs."""
    running = [SimpleNamespace(status="running", job_id=job) for job in jobs]
    return cast("ContainerEngine", SimpleNamespace(state=state, list=lambda: running))


def tried(monkeypatch: pytest.MonkeyPatch, state: Path, steps: list[TrialStep], caps: Any = CAPS) -> Any:
    monkeypatch.setattr(trial, "attempt", lambda *_: steps)
    return trial.tried(caps, engine(state), DUMPER)


def test_without_a_trial_nothing_is_claimed_and_one_is_due(tmp_path: Path) -> None:
    for host in (engine(tmp_path), engine(tmp_path, "0x01")):
        found, due = trial.recalled(CAPS, host)
        assert (found.process_mode, found.other_users, due) == (False, False, True)
        assert "no trial" in found.reason


@pytest.mark.parametrize(("steps", "others"), [(WORKS, True), (ROOT_ALONE, False)])
def test_a_trial_says_whose_processes_it_proved_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[TrialStep], others: bool
) -> None:
    found = tried(monkeypatch, tmp_path, steps)
    assert (found.process_mode, found.other_users, "no limits" in found.reason) == (True, others, not others)
    assert trial.recalled(CAPS, engine(tmp_path)) == (found, not others), "what failed is tried again"
    record = json.loads((tmp_path / "trial.json").read_text())
    assert record["other_users"] == others


def test_other_tools_are_not_claimed_to_work_until_they_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(monkeypatch, tmp_path, WORKS)
    found, due = trial.recalled(UPDATED, engine(tmp_path, trial.job_id("root")))
    assert (found.process_mode, found.other_users, due) == (False, False, True)


def test_under_running_jobs_an_earlier_trial_counts_and_another_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(monkeypatch, tmp_path, ROOT_ALONE)
    found, due = trial.recalled(UPDATED, engine(tmp_path, "0x01"))
    assert (found.process_mode, found.other_users, due) == (True, False, True)


def test_after_a_failure_no_earlier_trial_counts_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, tmp_path, WORKS)
    assert not tried(monkeypatch, tmp_path, NOTHING, UPDATED).process_mode
    found, due = trial.recalled(UPDATED, engine(tmp_path, "0x01"))
    assert (found.process_mode, due) == (False, True)


def test_a_host_whose_versions_do_not_do_has_nothing_to_try(tmp_path: Path) -> None:
    without = replace(CAPS, process_mode=False, other_users=False, reason="CRIU is missing")
    assert trial.recalled(without, engine(tmp_path)) == (without, False)
