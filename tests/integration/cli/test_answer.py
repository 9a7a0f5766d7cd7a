"""`provider answer`: what is suspended, by when it is to be answered and with what, and the answer itself."""

import json
from pathlib import Path

import pytest

from everlease.domain.lease import LeaseState
from everlease.wire.terms import ReceiptModel, SignedReceipt
from provider_agent.journal import Journal
from tests.integration.cli.conftest import RATE, Cli
from tests.support.deployed import Market

pytestmark = pytest.mark.anvil


@pytest.fixture
def lease(market: Market) -> str:
    """A suspended lease of the node."""
    market.stake()
    opening, found = market.open_call(market.fund(market.order()), rate=RATE)
    market.send(market.watcher, opening)
    market.anvil.warp(20)
    market.send(market.watcher, market.escrow.suspend(market.leases[found]))
    return found


def test_the_owner_sees_what_a_bare_answer_costs_and_sends_it(market: Market, cli: Cli, lease: str) -> None:
    shown = cli(market.provider, "provider", "answer", "--json")
    (item,) = json.loads(shown.stdout)["items"]
    state = market.views.lease(lease)
    assert (item["lease"], item["answer_by"], item["clears"]) == (lease, state.exit_at, False)
    assert state.state is LeaseState.SUSPENDED, "nothing is sent unasked"
    refused = cli(market.provider, "provider", "answer", "--send", "--json")
    assert (refused.returncode, market.views.lease(lease).state) == (5, LeaseState.SUSPENDED), "nobody agreed to pay"
    assert "of collateral" in refused.stderr
    assert "wait until" in refused.stderr
    sent = cli(market.provider, "provider", "answer", "--send", "--yes", "--json")
    assert sent.returncode == 0, sent.stderr
    assert market.views.lease(lease).state is LeaseState.NONE
    assert market.views.stake(market.provider.address).slashed == item["penalty"] > 0


def test_a_node_clears_its_lease_with_a_receipt_that_its_agent_kept(
    market: Market, cli: Cli, lease: str, tmp_path: Path
) -> None:
    receipt, signature = market.receipt(lease, 0, market.views.lease(lease).started_at, final=True)
    journal = Journal(tmp_path / "data" / "journal.db")
    journal.keep_receipt(SignedReceipt(receipt=ReceiptModel.from_domain(receipt), signature=signature))
    shown = cli(market.node, "provider", "answer", "--data-dir", "data")
    assert "a receipt that clears it" in shown.stdout, shown.stderr
    sent = cli(market.node, "provider", "answer", "--data-dir", "data", "--send")
    assert sent.returncode == 0, sent.stderr
    assert market.views.stake(market.provider.address).slashed == 0
    assert "None is suspended" in cli(market.node, "provider", "answer").stdout


def test_nobody_answers_for_others(market: Market, cli: Cli, lease: str) -> None:
    assert json.loads(cli(market.tenant, "provider", "answer", "--json").stdout)["items"] == []
    assert cli(market.provider, "provider", "answer", "--lease", "0xfff").returncode == 4
