"""A slice of scripts/sender_campaign.py on every run, and that the campaign sees a sender which displaces too early."""

import pytest

from everlease.chain.memory import MemoryChain
from tests.support.sender_campaign import Schedule


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_one_effect_per_action(first: int) -> None:
    for seed in range(1_000_000 + first, 1_000_000 + first + 25):
        Schedule(seed).run()


def test_the_campaign_notices_a_sender_that_does_not_wait_for_finality(monkeypatch: pytest.MonkeyPatch) -> None:
    nonce = MemoryChain.nonce
    monkeypatch.setattr(MemoryChain, "nonce", lambda chain, address, at=None: nonce(chain, address))
    assert any(goes_wrong(seed) for seed in range(400))


def goes_wrong(seed: int) -> bool:
    """Whether the schedule ends with an action that has no effect or two."""
    try:
        Schedule(seed).run()
    except AssertionError:
        return True
    return False
