"""The alerts name metrics that there are."""

import re
from pathlib import Path

import yaml
from prometheus_client import generate_latest

from everlease.supervision import Roster
from marketplace.metrics import Metrics

RULES = Path(__file__).parents[3] / "docs" / "alerts.yml"


def test_every_alert_is_about_a_metric_of_ours() -> None:
    metrics = Metrics(roster := Roster())
    roster.add("listener", 1.0, vital=True)
    metrics.greetings.labels("limited").inc()
    exposed = set(re.findall(r"^(everlease_\w+)", generate_latest(metrics.registry).decode(), re.MULTILINE))
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]:
        named = set(re.findall(r"everlease_\w+", rule["expr"]))
        assert named, rule["alert"]
        assert named <= exposed, rule["alert"]
    buckets = set(re.findall(r'loop_lag_seconds_bucket{le="([^"]+)"}', generate_latest(metrics.registry).decode()))
    assert "1.0" in buckets
    assert any("loop_lag" in rule["expr"] for rule in group["rules"])
