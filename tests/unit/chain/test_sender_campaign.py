"""A slice of scripts/sender_campaign.py on every run, and that the campaign notices senders that are wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from everlease.chain.memory import MemoryChain
from everlease.chain.memory_journal import MemoryJournal
from tests.support.sender_campaign import Schedule

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_one_effect_per_action(first: int) -> None:
    for seed in range(1_000_000 + first, 1_000_000 + first + 25):
        Schedule(seed).run()


def a_revert_counts_at_once(patch: Patch) -> None:
    included = MemoryJournal.included

    def hasty(journal: Any, tx_id: int, receipt: Any, *, final: bool, error: str = "") -> None:
        included(journal, tx_id, receipt, final=final or not receipt.ok, error=error)

    patch.setattr(MemoryJournal, "included", hasty)


def a_success_counts_at_once(patch: Patch) -> None:
    included = MemoryJournal.included

    def hasty(journal: Any, tx_id: int, receipt: Any, *, final: bool, error: str = "") -> None:
        included(journal, tx_id, receipt, final=final or receipt.ok, error=error)

    patch.setattr(MemoryJournal, "included", hasty)


def every_endpoint_is_believed(patch: Patch) -> None:
    """Finality asked of one endpoint, receipts and nonces of another, as they come."""
    standing = MemoryChain.standing

    def believed(chain: MemoryChain, address: str, final: Any, hashes: Any) -> Any:
        found = standing(chain, address, final, hashes)
        return replace(found, anchored=True, final_nonce=chain._count(address, final.number + 1))

    patch.setattr(MemoryChain, "standing", believed)


def a_foreign_one_counts_at_once(patch: Patch) -> None:
    standing = MemoryChain.standing

    def early(chain: MemoryChain, address: str, final: Any, hashes: Any) -> Any:
        found = standing(chain, address, final, hashes)
        return replace(found, final_nonce=found.nonce)

    patch.setattr(MemoryChain, "standing", early)


def a_refusal_undoes_what_another_sent(patch: Patch) -> None:
    def careless(journal: Any, tx_id: int, error: str) -> None:
        journal._change(tx_id, "tx.failed", state="failed")

    patch.setattr(MemoryJournal, "refused", careless)


@pytest.mark.parametrize(
    "plant",
    [
        a_revert_counts_at_once,
        a_success_counts_at_once,
        every_endpoint_is_believed,
        a_foreign_one_counts_at_once,
        a_refusal_undoes_what_another_sent,
    ],
)
def test_the_campaign_notices(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    assert any(goes_wrong(seed) for seed in range(600))


def goes_wrong(seed: int) -> bool:
    """Whether the schedule ends with an action that has no effect or two, or with a false journal."""
    try:
        Schedule(seed).run()
    except AssertionError:
        return True
    return False
