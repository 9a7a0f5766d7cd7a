"""`everlease provider …`: stake, nodes, earnings, and running an agent."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from everlease.chain.keys import Key, save_keystore
from everlease.cli import answering, payments, provider_host
from everlease.cli.context import Context, of
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.options import Json
from everlease.cli.output import ago, clock, console, emit_json, facts, money, short, table
from everlease.cli.staking import add_stake, authorise, stake_up_to
from everlease.cli.unlock import ask_password, unlock
from everlease.domain.money import from_units, to_units
from everlease.wire.http import NodeList, NodeOut
from provider_agent.control import ask
from provider_agent.installation.stop import CONTROL_SOCKET, unheard

app = typer.Typer(no_args_is_help=True, help="Stake, authorise nodes, collect earnings, run an agent.")
Amount = Annotated[str, typer.Argument(help="Dollars, with at most six decimals.")]
NodeKey = Annotated[Path, typer.Option("--node", help="The node's keystore file (the host's own hot key).")]
NodePassword = Annotated[
    Path | None, typer.Option("--node-password-file", help="The node keystore's password, if not asked for.")
]
_AGENT_PASSWORD = "EVERLEASE_AGENT_KEYSTORE_PASSWORD"  # noqa: S105 - a variable's name
provider_host.register(app)
app.command(epilog="Example: everlease --key node.json provider answer --data-dir /var/lib/everlease --send")(
    answering.answer
)


@app.command("new-key", epilog="Example: everlease provider new-key node.json")
def new_key(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="The keystore file to write.")],
    as_json: Json = False,
) -> None:
    """Make a node's own key: the agent signs with it, and pays gas from its account to collect and to close leases."""
    config, key = of(ctx).config, Key.generate()
    given = config.password_is_for(path)
    if given and config.password is not None:
        password = config.password
    elif given and config.password_file is not None:
        password = config.password_file.read_text(encoding="utf-8").rstrip("\n")
    else:
        password = ask_password("Password", confirm=True)
    save_keystore(path, key, password)
    if as_json:
        emit_json({"address": key.address, "file": str(path)})
    else:
        console.print(f"{path} holds the key of {key.address}", soft_wrap=True)


@app.command(epilog="Example: everlease --key wallet.json provider register --stake 50 --node node.json")
def register(
    ctx: typer.Context,
    node: NodeKey,
    amount: Annotated[str, typer.Option("--stake", help="Dollars that shall be staked; what is already, counts.")],
    node_password: NodePassword = None,
    as_json: Json = False,
) -> None:
    """Stake and authorise a node. Again is fine: only what is missing is sent."""
    wallet, key = of(ctx).wallet, unlock(node, file=node_password).key
    staked, authorised = stake_up_to(wallet, to_units(amount)), authorise(wallet, key)
    if as_json:
        emit_json({"provider": wallet.address, "node": key.address, "stake_tx": staked, "authorise_tx": authorised})
        return
    total = money(wallet.views.stake(wallet.address).staked)
    console.print(f"{wallet.address} has staked {total} and answers for node {key.address}", soft_wrap=True)


@app.command(epilog="Example: everlease --key wallet.json provider stake 25")
def stake(ctx: typer.Context, amount: Amount, as_json: Json = False) -> None:
    """Add stake."""
    wallet = of(ctx).wallet
    _sent(as_json, add_stake(wallet, to_units(amount)), f"{amount} staked")


@app.command(epilog="Example: everlease --key wallet.json provider unstake 25")
def unstake(ctx: typer.Context, amount: Amount, as_json: Json = False) -> None:
    """Start the unbonding of stake; 'withdraw' takes it out after the unbonding period."""
    wallet = of(ctx).wallet
    units = to_units(amount)
    tx = wallet.send(f"unbonding of {from_units(units)}", wallet.staking.request_unstake(units)).tx_hash
    _sent(as_json, tx, f"{amount} will be free at {clock(wallet.views.stake(wallet.address).unbonds_at)}")


@app.command(epilog="Example: everlease --key wallet.json provider withdraw")
def withdraw(ctx: typer.Context, as_json: Json = False) -> None:
    """Take out earnings, and stake that has unbonded and that no lease holds."""
    wallet = of(ctx).wallet
    earned, unbonded = payments.withdraw(wallet), payments.withdraw_stake(wallet)
    if as_json:
        emit_json({"earnings": earned, "stake": unbonded})
        return
    console.print(f"{money(earned)} of earnings and {money(unbonded)} of stake withdrawn to {wallet.address}")


@app.command(epilog="Example: everlease --key wallet.json provider status")
def status(ctx: typer.Context, as_json: Json = False) -> None:
    """Stake, what of it is locked, and this provider's nodes."""
    context = of(ctx)
    wallet = context.wallet
    held, locked = wallet.views.stake(wallet.address), wallet.views.locked(wallet.address)
    nodes = nodes_of(context, wallet.address)
    if as_json:
        emit_json(
            {
                "provider": wallet.address,
                "staked": held.staked,
                "locked": locked,
                "unbonding": held.unbonding,
                "unbonds_at": held.unbonds_at,
                "claimable": wallet.views.claimable(wallet.address),
                "nodes": nodes,
            }
        )
        return
    facts(
        [
            ("provider", wallet.address),
            ("staked", money(held.staked)),
            ("locked behind leases", money(locked)),
            ("unbonding", money(held.unbonding)),
            ("withdrawable earnings", money(wallet.views.claimable(wallet.address))),
        ]
    )
    console.print()
    _show_nodes(nodes)


@app.command(epilog="Example: everlease --key wallet.json provider earnings --json")
def earnings(ctx: typer.Context, as_json: Json = False) -> None:
    """What was earned, withdrawn and slashed."""
    context = of(ctx)
    wallet = context.wallet
    account: dict[str, Any] = context.explorer(f"addresses/{wallet.address}")
    claimable = wallet.views.claimable(wallet.address)
    if as_json:
        emit_json({"provider": wallet.address, "claimable": claimable, "explorer": account})
        return
    found = account["provider"] or {}
    facts(
        [
            ("earned", money(found.get("earned", 0))),
            ("withdrawable", money(claimable)),
            ("slashed", money(found.get("slashed", 0))),
            ("leases", f"{found.get('leases', 0)}, {found.get('failed', 0)} of them failed"),
        ]
    )
    rows = [(ago(it["at"]), it["reason"], money(it["amount"]), short(it["job_id"])) for it in account["payments"]]
    table(("\nWHEN", "\nFOR", "\nAMOUNT", "\nJOB"), rows, empty="\nNothing was paid yet.")


nodes = typer.Typer(no_args_is_help=True, help="This provider's nodes.")
app.add_typer(nodes, name="nodes")


@nodes.command("list", epilog="Example: everlease --key wallet.json provider nodes list")
def nodes_list(ctx: typer.Context, as_json: Json = False) -> None:
    """Nodes of this provider that ever connected."""
    context = of(ctx)
    found = nodes_of(context, context.wallet.address)
    emit_json({"items": found}) if as_json else _show_nodes(found)


@nodes.command("authorise", epilog="Example: everlease --key wallet.json provider nodes authorise --node node.json")
def nodes_authorise(
    ctx: typer.Context, node: NodeKey, node_password: NodePassword = None, as_json: Json = False
) -> None:
    """Let a node bid with this provider's stake."""
    key = unlock(node, file=node_password).key
    _sent(as_json, authorise(of(ctx).wallet, key), f"{key.address} is authorised")


@nodes.command("revoke", epilog="Example: everlease --key wallet.json provider nodes revoke 0xabc…")
def nodes_revoke(
    ctx: typer.Context, node: Annotated[str, typer.Argument(help="The node's address.")], as_json: Json = False
) -> None:
    """Stop a node from opening new leases; those that run go on."""
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", node):
        raise CliError(ExitCode.INVALID, f"{node!r} is no address: give 0x and 40 hexadecimal digits")
    wallet = of(ctx).wallet
    tx = wallet.send(f"revoking node {node.lower()}", wallet.staking.revoke_node(node.lower())).tx_hash
    _sent(as_json, tx, f"{node} is revoked")


@app.command(epilog="Example: everlease provider drain --data-dir /var/lib/everlease")
def drain(
    data_dir: provider_host.Installed = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the jobs' histories.")] = "",
    as_json: Json = False,
) -> None:
    """Empty this host: its jobs migrate with nothing lost, and it bids no more until the agent starts again."""
    answer = request_drain(provider_host.data_folder(data_dir), reason)
    if as_json:
        emit_json(answer)
        return
    console.print(f"the agent drains: {answer.get('jobs_left', 0)} jobs are still here")


def request_drain(data_dir: Path, reason: str) -> dict[str, Any]:
    """Ask the agent on this host by its control socket; its answer. Raises CliError where no agent listens."""
    request = {"command": "drain", "exit_when_empty": False, "reason": reason}
    try:
        return asyncio.run(ask(data_dir / CONTROL_SOCKET, request))
    except (OSError, ValueError, TimeoutError) as error:
        raise CliError(ExitCode.UNAVAILABLE, unheard(data_dir, error)) from error


@app.command(epilog="Example: everlease --key node.json provider run --provider 0xabc… --data-dir /var/lib/everlease")
def run(
    ctx: typer.Context,
    provider: Annotated[str, typer.Option("--provider", help="Address of the provider whose stake backs the bids.")],
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Where the agent keeps its journal, images and blocks.")],
    docker_socket: Annotated[
        Path | None, typer.Option("--docker", help="Use the host's own daemon at this socket.")
    ] = None,
    criu: Annotated[
        Path | None, typer.Option("--criu", help="CRIU 4.2 or newer; without it only 'files' mode.")
    ] = None,
) -> None:
    """Run this host's agent in the foreground; --key is the node's own key. Settings of EVERLEASE_AGENT_* apply."""
    context = of(ctx)
    config = context.config
    key_file, rpc_url, deployments = provider_host.of_agent(config)
    terms = context.terms
    gateway = config.market_url.replace("http", "ws", 1).rstrip("/") + "/v1/node"
    settings = {
        "DATA_DIR": data_dir.resolve(),
        "PROVIDER": provider,
        "KEYSTORE": key_file.resolve(),
        "GATEWAY_URL": gateway,
        "STORE_URL": terms.store_url,
        "DEPLOYMENTS": deployments.resolve(),
        "RPC_URLS": json.dumps([rpc_url]),
        "WATCHERS": f'["{terms.watcher}"]',
        "DOCKER_SOCKET": docker_socket,
        "CRIU": criu,
    }
    environment = {f"EVERLEASE_AGENT_{key}": str(value) for key, value in settings.items() if value is not None}
    if not os.environ.keys() & {f"{_AGENT_PASSWORD}{suffix}" for suffix in ("", "_FILE")}:
        opened = context.unlock(key_file)
        file = opened.file
        environment |= {f"{_AGENT_PASSWORD}_FILE": str(file.resolve())} if file else {_AGENT_PASSWORD: opened.password}
    os.execve(sys.executable, [sys.executable, "-m", "provider_agent"], {**environment, **os.environ})  # noqa: S606 - no shell


def nodes_of(context: Context, provider: str) -> list[NodeOut]:
    """All nodes of one provider that the marketplace knows."""
    found: list[NodeOut] = []
    cursor: str | None = None
    while True:
        page = context.market.get("/v1/nodes", NodeList, signed_in=False, params={"cursor": cursor, "limit": 200})
        found += [node for node in page.items if node.provider.lower() == provider.lower()]
        cursor = page.next_cursor
        if cursor is None:
            return found


def _show_nodes(found: list[NodeOut]) -> None:
    rows = [
        (
            node.node,
            node.liveness,
            "yes" if node.connected else "no",
            "yes" if node.draining else "no",
            node.losses,
            ago(node.last_seen),
        )
        for node in found
    ]
    table(
        ("NODE", "LIVENESS", "CONNECTED", "DRAINING", "LOSSES", "SEEN"),
        rows,
        empty="No node of yours has connected yet.",
    )


def _sent(as_json: bool, tx: str | None, sentence: str) -> None:
    if as_json:
        emit_json({"tx": tx})
    else:
        console.print(f"{sentence} ({'already; nothing was sent' if tx is None else short(tx)})")
