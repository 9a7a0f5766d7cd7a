"""Whose fault a suspension was: the table of cases, and which evidence outweighs which."""

import pytest

from everlease.domain.fault import PATIENCE, Blame, Evidence, judge, parties
from everlease.domain.terms import bearable

ONE = frozenset({"0xb"})
CASES = [
    (Evidence(told=False, start_sent=False), Blame.OTHERS, "told nothing"),
    (Evidence(told=False, start_sent=False, silent=True), Blame.OTHERS, "told nothing"),
    (Evidence(outages=frozenset({"gateway"}), silent=True), Blame.OTHERS, "gateway was down"),
    (Evidence(outages=frozenset({"chain", "gateway"}), step="Start", worked_at=ONE), Blame.OTHERS, "chain and gateway"),
    (Evidence(start_sent=False), Blame.OTHERS, "never sent its Start"),
    (Evidence(start_sent=False, silent=True), Blame.OTHERS, "never sent its Start"),
    (Evidence(silent=True), Blame.HOST, "heartbeats stopped"),
    (Evidence(silent=True, window_used=1), Blame.HOST, "heartbeats stopped"),
    (Evidence(outages=frozenset({"store", "chain"}), silent=True), Blame.HOST, "heartbeats stopped"),
    (Evidence(), Blame.OTHERS, "heard to the end"),
    (Evidence(start_sent=False, step="Prepare", worked_at=ONE), Blame.HOST, "Prepare worked"),
    (Evidence(outages=frozenset({"store"}), step="Prepare", worked_at=ONE), Blame.OTHERS, "store was down"),
    (Evidence(start_sent=False, step="Prepare", failed_at=ONE, window_used=1), Blame.OTHERS, "Prepare failed at two"),
    (Evidence(step="Start", worked_at=ONE, failed_at=ONE), Blame.HOST, "Start worked"),
    (Evidence(step="Start", worked_at=ONE, window_used=1), Blame.HOST, "Start worked"),
    (Evidence(step="Start", failed_at=ONE), Blame.OPEN, "no other provider"),
    (Evidence(step="Start", failed_at=ONE, affordable=False), Blame.OPEN, "no other provider"),
    (Evidence(step="Start", failed_at=ONE, window_used=PATIENCE), Blame.OTHERS, "Start failed at two"),
    (Evidence(step="Start"), Blame.OPEN, "no other provider"),
    (Evidence(step="Start", window_used=PATIENCE - 0.01), Blame.OPEN, "no other provider"),
    (Evidence(step="Start", window_used=PATIENCE), Blame.OTHERS, "nothing shows"),
    (Evidence(step="Start", window_used=1, affordable=False), Blame.OPEN, "no other provider"),
    (Evidence(step="Start", failed_at=ONE, window_used=1, affordable=False), Blame.OTHERS, "failed at two"),
]


@pytest.mark.parametrize(("evidence", "blame", "reason"), CASES)
def test_the_table_of_cases(evidence: Evidence, blame: Blame, reason: str) -> None:
    verdict = judge(evidence)
    assert verdict.blame is blame
    assert reason in verdict.reason


@pytest.mark.parametrize(("spent", "allowed"), [(0, True), (200, True), (201, False)])
def test_unserved_leases_cost_no_more_than_a_twentieth_of_the_deposit(spent: int, allowed: bool) -> None:
    assert bearable(spent, deposit=4000) is allowed


def test_providers_that_never_served_are_one_party() -> None:
    assert len(parties({"0xa", "0xb", "0xc"}, set())) == 1
    assert parties({"0xa", "0xb"}, {"0xa"}) == {"0xa", "newcomers"}
    assert parties({"0xa", "0xb"}, {"0xa", "0xb", "0xd"}) == {"0xa", "0xb"}
