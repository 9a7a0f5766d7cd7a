"""`provider register` may be repeated after it broke off: nothing is staked twice."""

import json
from pathlib import Path

from everlease.chain.keys import Key, save_keystore
from tests.support.deployed import DOLLAR, Market

from .conftest import Cli


def register(cli: Cli, provider: Key, node: Path, stake: str) -> dict[str, str | None]:
    words = ("provider", "register", "--node", node.name, "--node-password-file", "node.password", "--stake", stake)
    done = cli(provider, *words, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_what_is_staked_already_counts(market: Market, cli: Cli) -> None:
    node = cli.folder / "node.json"
    save_keystore(node, market.node, "node's own", rounds=2**12)
    (cli.folder / "node.password").write_text("node's own\n")

    first = register(cli, market.provider, node, "50")
    again = register(cli, market.provider, node, "50")
    more = register(cli, market.provider, node, "60")

    assert first["stake_tx"]
    assert first["authorise_tx"]
    assert (again["stake_tx"], again["authorise_tx"]) == (None, None)
    assert more["stake_tx"]
    assert more["authorise_tx"] is None
    assert market.views.stake(market.provider.address).staked == 60 * DOLLAR
    assert market.views.provider_of(market.node.address) == market.provider.address
