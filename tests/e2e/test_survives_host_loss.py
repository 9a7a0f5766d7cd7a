"""A host is killed under a job, on real parts, and the job's result is bit-identical to an undisturbed run."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from everlease.demo.params import SMALL
from everlease.demo.scenario import run_demo

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.docker
@pytest.mark.anvil
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0, reason="hosts take root")
@pytest.mark.skipif(shutil.which("dockerd") is None, reason="hosts take Docker")
@pytest.mark.skipif(not (ROOT / ".tools/criu/criu").exists(), reason="process checkpoints take CRIU")
def test_a_job_outlives_its_host(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    report = run_demo(ROOT, home, SMALL, quiet=True)

    assert report.broken == []
    assert report.document["bit_exact"]
    assert report.document["conserved"]
    (recovery,) = report.document["recoveries"]
    assert recovery["from_node"] != recovery["to_node"]
    assert report.document["steps"]["redone"] < SMALL.steps
    assert [slash["answered"] for slash in report.document["slashes"]] == [False]
    assert json.loads((home / "report.json").read_text())["job"]["state"] == "SUCCEEDED"
    html = (home / "report.html").read_text()
    assert html.count("<svg") == 3
    assert not re.search(r"""(src|href)\s*=\s*["']https?:|<link|<script|@import""", html)
    assert not (home / "stack").exists()
