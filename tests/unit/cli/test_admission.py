"""What a launch asks of a wallet before the upload."""

from types import SimpleNamespace
from typing import Any

import pytest

from everlease.chain.base import Fees
from everlease.chain.offers import MAX_FEE
from everlease.cli.admission import FUND_GAS, check_money
from everlease.cli.errors import CliError, ExitCode

GWEI = 10**9


def check(held: int, fees: Fees) -> None:
    chain = SimpleNamespace(fees=lambda: fees, balance=lambda address: held)
    wallet: Any = SimpleNamespace(address="0x" + "11" * 20, chain=chain, require_balance=lambda units: None)
    order: Any = SimpleNamespace(deposit=1)
    check_money(order, wallet)


@pytest.mark.parametrize("fees", [Fees(10 * GWEI, GWEI), Fees(0, GWEI), Fees(GWEI, 0)])
def test_the_wallet_holds_what_the_payment_will_offer(fees: Fees) -> None:
    offered = 2 * fees.base_fee + fees.priority_fee
    check(FUND_GAS * offered, fees)
    with pytest.raises(CliError, match="wei for gas") as refused:
        check(FUND_GAS * offered - 1, fees)
    assert refused.value.code == ExitCode.MONEY


def test_no_more_is_asked_than_the_cap_lets_it_offer() -> None:
    check(FUND_GAS * MAX_FEE, Fees(400 * GWEI, GWEI))
