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


def test_two_at_once_stake_once(market: Market, cli: Cli) -> None:
    before = market.views.asset_balance(market.provider.address)
    save_keystore(cli.folder / "node.json", market.node, "node's own", rounds=2**12)
    (cli.folder / "node.password").write_text("node's own\n")
    register(cli, market.provider, cli.folder / "node.json", "1")
    words = ("provider", "register", "--node", "node.json", "--stake", "50", "--json")
    both = [cli.start(*words) for _ in range(2)]
    done = [(*process.communicate(timeout=120), process.returncode) for process in both]
    assert [code for _, _, code in done] == [0, 0], done
    assert sum(json.loads(out)["stake_tx"] is not None for out, _, _ in done) == 1
    assert market.views.stake(market.provider.address).staked == 50 * DOLLAR
    assert market.views.asset_balance(market.provider.address) == before - 50 * DOLLAR


def test_a_node_that_is_authorised_is_not_authorised_again(market: Market, cli: Cli) -> None:
    save_keystore(cli.folder / "node.json", market.node, "node's own", rounds=2**12)
    (cli.folder / "node.password").write_text("node's own\n")
    words = ("provider", "nodes", "authorise", "--node", "node.json")
    first = cli(market.provider, *words)
    assert (first.returncode, "is authorised (0x" in first.stdout) == (0, True), first.stderr
    nonce = market.chain.nonce(market.provider.address)
    again = cli(market.provider, *words)
    assert (again.returncode, "already; nothing was sent" in again.stdout) == (0, True), again.stderr
    assert market.chain.nonce(market.provider.address) == nonce
