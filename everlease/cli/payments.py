"""A wallet's own transactions about escrow and earnings."""

import time

from everlease.chain.contracts import NO_PERMIT
from everlease.cli.context import Wallet
from everlease.cli.errors import CliError, ExitCode
from everlease.domain.money import to_units
from everlease.domain.terms import Order


def top_up(wallet: Wallet, job_id: str, amount: str) -> str:
    """Add dollars to a job's escrow; returns the transaction's hash."""
    units = to_units(amount)
    if units == 0:
        raise CliError(ExitCode.INVALID, "the amount is zero: give a positive number of dollars")
    wallet.require_balance(units)
    escrow = wallet.deployment.escrow
    enough = wallet.views.allowance(wallet.address, escrow) >= units
    permit = NO_PERMIT if enough else wallet.permit(escrow, units, int(time.time()) + 3600)
    return wallet.send(wallet.escrow.top_up(job_id, units, permit)).tx_hash


def refund_and_withdraw(wallet: Wallet, order: Order) -> int:
    """Credit what no lease has set aside and send it to the wallet; returns base units."""
    wallet.send(wallet.escrow.refund(order))
    return withdraw(wallet)


def withdraw(wallet: Wallet) -> int:
    """Send all that is claimable to the wallet itself; returns base units, zero where there is nothing."""
    amount = wallet.views.claimable(wallet.address)
    if amount:
        wallet.send(wallet.escrow.withdraw(wallet.address))
    return amount
