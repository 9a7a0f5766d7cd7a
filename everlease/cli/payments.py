"""A wallet's own transactions about escrow and earnings."""

import time

from everlease.chain._generated.events import StakeWithdrawn, Withdrawn
from everlease.chain.contracts import NO_PERMIT
from everlease.chain.errors import CallReverted
from everlease.cli.context import Wallet
from everlease.cli.errors import CliError, ExitCode
from everlease.domain.money import to_units
from everlease.domain.terms import Order

_NOTHING_YET = {"StillUnbonding", "NothingToWithdraw"}


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
    """Send all that is claimable to the wallet itself; returns the base units sent, zero where there is nothing."""
    if not wallet.views.claimable(wallet.address):
        return 0
    return wallet.moved(wallet.send(wallet.escrow.withdraw(wallet.address)), Withdrawn)


def withdraw_stake(wallet: Wallet) -> int:
    """Send the wallet what of its stake has unbonded; returns the base units sent, zero where there is nothing yet."""
    try:
        return wallet.moved(wallet.send(wallet.staking.withdraw(wallet.address)), StakeWithdrawn)
    except CallReverted as error:
        if error.name in _NOTHING_YET:
            return 0
        raise
