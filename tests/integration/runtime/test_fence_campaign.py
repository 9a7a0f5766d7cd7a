"""A slice of scripts/fence_campaign.py on every run, and a planted fault that it must notice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.runtime.conftest import ROOT


def campaign(report: Path, kills: int, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "scripts/fence_campaign.py", "--kills", str(kills), "--seed", "7", "--containers", "4"]
    argv += ["--report", str(report), *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("image")
def test_a_slice_of_the_campaign(tmp_path: Path) -> None:
    done = campaign(tmp_path / "report.json", 24)
    # How fast a dead guard's container freezes is for the campaign to judge, on cores that do nothing else.
    report = json.loads((tmp_path / "report.json").read_text())
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    assert sum(report["kills"].values()) >= 20
    assert report["steps"] > 100
    assert not report["wrong"]


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("image")
def test_the_campaign_notices_jobs_that_run_past_their_fence(tmp_path: Path) -> None:
    done = campaign(tmp_path / "report.json", 2, "--planted", "2.5")
    assert done.returncode == 1
    assert "past its fence" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
