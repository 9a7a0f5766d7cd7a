"""`everlease explorer …`: what happened on chain, from the indexer's API, and how the market prices. Takes no key."""

from typing import Annotated, Any

import typer

from everlease.cli.context import of
from everlease.cli.options import Json, Limit
from everlease.cli.output import console, emit_json, facts, money, plain, short, table

app = typer.Typer(no_args_is_help=True, help="Leases, events, providers and slashes as the chain has them; prices.")
Cursor = Annotated[str | None, typer.Option("--cursor", help="Continue after a page: the value of its 'next'.")]


def _page(
    ctx: typer.Context,
    path: str,
    columns: tuple[str, ...],
    in_dollars: frozenset[str] = frozenset(),
    *,
    as_json: bool,
    limit: int,
    cursor: str | None,
    **filters: object,
) -> None:
    answer = of(ctx).explorer(path, limit=limit, after=cursor, **filters)
    if as_json:
        emit_json(answer)
        return
    items = answer.get("items", [])
    rows = (
        [[_cell(item.get(name), name in in_dollars) for name in columns] for item in items]
        if isinstance(items, list)
        else []
    )
    table([name.upper() for name in columns], rows, empty="Nothing yet.")
    if answer.get("next"):
        console.print(f"more: --cursor {answer['next']}", style="dim", soft_wrap=True)


def _cell(value: Any, in_dollars: bool) -> str:
    if value is None:
        return "-"
    if in_dollars:
        return money(int(value))
    return short(value) if isinstance(value, str) and value.startswith("0x") else str(value)


@app.command(epilog="Example: everlease explorer leases --limit 20")
def leases(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option("--state", help="Only leases in this state.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """Leases, newest first."""
    columns = ("lease_id", "job_id", "epoch", "node", "state", "rate", "earned", "paid")
    _page(ctx, "leases", columns, frozenset({"rate", "paid"}), as_json=as_json, limit=limit, cursor=cursor, state=state)


@app.command(epilog="Example: everlease explorer events --name LeaseFailed")
def events(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Option("--name", help="Only events of this name.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """Contract events, newest first."""
    columns = ("block_number", "name", "job_id", "lease_id", "tx_hash")
    _page(ctx, "events", columns, as_json=as_json, limit=limit, cursor=cursor, name=name)


@app.command(epilog="Example: everlease explorer providers")
def providers(ctx: typer.Context, limit: Limit = 50, cursor: Cursor = None, as_json: Json = False) -> None:
    """Providers with stake and record."""
    columns = ("provider", "staked", "locked", "slashed", "leases", "failed", "earned")
    in_dollars = frozenset({"staked", "locked", "slashed", "earned"})
    _page(ctx, "providers", columns, in_dollars, as_json=as_json, limit=limit, cursor=cursor)


@app.command(epilog="Example: everlease explorer market")
def market(ctx: typer.Context, as_json: Json = False) -> None:
    """How this market prices a lease: where a reserve starts, and how it rises."""
    reserve = of(ctx).terms.reserve
    if as_json:
        emit_json(reserve.model_dump())
        return
    posted = ((reserve.posted_cpu, "CPU"), (reserve.posted_gib, "GiB of memory"), (reserve.posted_gpu, "GPU"))
    facts(
        [
            ("posted", ", ".join(f"{money(rate)} an hour for each {unit}" for rate, unit in posted)),
            ("settled", f"the posted prices count where fewer than {reserve.least_providers} providers settled leases "
             f"of the job's class within {reserve.window_days} days; else their median does"),
            ("rises", f"in {reserve.rounds} rounds to the order's maximum: within {reserve.rise_s:g} s, in a recovery "
             f"from the job's last rate within {reserve.rise_in_recovery_s:g} s"),
        ]
    )  # fmt: skip


@app.command(epilog="Example: everlease explorer slashes --json")
def slashes(ctx: typer.Context, limit: Limit = 50, cursor: Cursor = None, as_json: Json = False) -> None:
    """Leases that failed, and where the slash went."""
    columns = ("lease_id", "provider", "answered", "slashed", "to_job", "to_caller", "to_insurance")
    _page(ctx, "slashes", columns, frozenset(columns[3:]), as_json=as_json, limit=limit, cursor=cursor)


@app.command(epilog="Example: everlease explorer job 0xabc…")
def job(ctx: typer.Context, job_id: Annotated[str, typer.Argument(metavar="JOB")], as_json: Json = False) -> None:
    """One job's escrow, leases and payments."""
    _document(ctx, f"jobs/{job_id}", as_json)


@app.command(epilog="Example: everlease explorer address 0xabc…")
def address(
    ctx: typer.Context, account: Annotated[str, typer.Argument(metavar="ADDRESS")], as_json: Json = False
) -> None:
    """What an account staked, earned, paid and can withdraw."""
    _document(ctx, f"addresses/{account.lower()}", as_json)


def _document(ctx: typer.Context, path: str, as_json: bool) -> None:
    answer = of(ctx).explorer(path)
    emit_json(answer) if as_json else console.print_json(data=plain(answer), ensure_ascii=True)
