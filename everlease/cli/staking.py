"""A wallet's own transactions about its stake and the nodes that bid with it."""

import time

from everlease.chain.keys import Key
from everlease.chain.typed_data import node_auth_digest
from everlease.cli.context import Wallet
from everlease.domain.money import from_units
from everlease.domain.terms import NodeAuth

_CONSENT_S = 3600


def authorise(wallet: Wallet, node: Key) -> str | None:
    """Bind a node to the wallet, with the node's consent; returns the transaction's hash, None where it is bound."""
    with wallet.turn():
        intent = f"authorising node {node.address}"
        wallet.settle(intent)
        whose = wallet.views.provider_of(node.address)
        if whose is not None and whose.lower() == wallet.address.lower():
            return None
        auth = NodeAuth(wallet.address, node.address, int(time.time()) + _CONSENT_S, time.time_ns())
        signature = node.sign(node_auth_digest(wallet.deployment.staking_domain, auth))
        return wallet.send(intent, wallet.staking.authorise_node(auth, signature)).tx_hash


def add_stake(wallet: Wallet, units: int) -> str:
    """Stake base units of the wallet; returns the transaction's hash."""
    staking, intent = wallet.deployment.staking, f"stake of {from_units(units)}"
    return wallet.pay(intent, staking, units, lambda permit: wallet.staking.stake(units, permit)).tx_hash


def stake_up_to(wallet: Wallet, units: int) -> str | None:
    """Stake what is missing to base units; returns the transaction's hash, None where nothing is."""
    with wallet.turn():
        wallet.settle()
        held = wallet.views.stake(wallet.address)
        missing = units - (held.staked - held.unbonding)
        return add_stake(wallet, missing) if missing > 0 else None
