"""`everlease up | down | status | demo`: a whole market on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from everlease.cli.errors import CliError, ExitCode
from everlease.cli.options import Json
from everlease.cli.output import console, emit_json, errors, styled, table
from everlease.stack.plan import StackPlan

if TYPE_CHECKING:
    from everlease.stack.local import LocalStack

Home = Annotated[Path, typer.Option("--home", help="Where the stack keeps its data.")]
ROOT = Path(__file__).resolve().parents[2]
DEFAULT_HOME = Path(".everlease")


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command(epilog="Example: everlease up --nodes 3")(up)
    app.command(epilog="Example: everlease down")(down)
    app.command(epilog="Example: everlease status --json")(status)
    app.command(epilog="Example: everlease demo --small")(demo)


def up(
    nodes: Annotated[int, typer.Option("--nodes", min=0, max=16, help="Development hosts; takes root.")] = 0,
    home: Home = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Start a market on this machine: chain, database, broker, services, and as many hosts as asked."""
    stack = _stack(home)
    note = (lambda text: errors.print(text, style="dim")) if not as_json else (lambda text: None)
    state = stack.up(StackPlan(nodes=nodes), note)
    if as_json:
        emit_json(state.document())
        return
    console.print(
        styled(
            "The market is up at ",
            (state.market_url, "bold"),
            f"; your wallet is in {home / 'keys' / 'tenant.json'}.",
        )
    )
    console.print("Next: everlease job launch job.yaml --wait        Stop it: everlease down")


def down(
    home: Home = DEFAULT_HOME,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its data too.")] = False,
    as_json: Json = False,
) -> None:
    """Stop everything that up started; the next up goes on where this one was."""
    stack = _stack(home)
    was_up = stack.down()
    if purge:
        stack.purge()
    if as_json:
        emit_json({"stopped": was_up})
        return
    console.print("Everything is stopped." if was_up else "Nothing was running.")


def status(home: Home = DEFAULT_HOME, as_json: Json = False) -> None:
    """What runs, with process ids and logs."""
    stack = _stack(home)
    found = stack.status()
    if as_json:
        emit_json({"up": bool(found), "processes": found})
    else:
        rows = [(item["name"], item["pid"], "running" if item["alive"] else "gone", item["log"]) for item in found]
        table(("PROCESS", "PID", "STATE", "LOG"), rows, empty="Nothing is up: 'everlease up' starts a market.")
    if any(not item["alive"] for item in found):
        gone = ", ".join(str(item["name"]) for item in found if not item["alive"])
        raise CliError(ExitCode.UNAVAILABLE, f"not running any more: {gone}")


def demo(
    small: Annotated[bool, typer.Option("--small", help="Less memory, and only the killed host.")] = False,
    home: Annotated[Path, typer.Option("--home", help="Where the report and the logs go.")] = DEFAULT_HOME / "demo",
    as_json: Json = False,
) -> None:
    """Train over four hosts: one is killed, one cut off, one drained. The result must equal a quiet run."""
    from everlease.demo.params import FULL, SMALL
    from everlease.demo.scenario import run_demo

    report = run_demo(ROOT, home.resolve(), SMALL if small else FULL, quiet=as_json)
    if as_json:
        emit_json(report.document)
    if report.broken:
        raise CliError(ExitCode.PROMISE_BROKEN, f"the promise was not kept: {'; '.join(report.broken)}")


def _stack(home: Path) -> "LocalStack":
    """The market of this folder. Imported here: its database and broker are no part of a client or an agent."""
    from everlease.stack.local import LocalStack

    return LocalStack(ROOT, home.resolve())
