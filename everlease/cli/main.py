"""The entry point: root options, sub-commands, and errors as one sentence with a stable exit code."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from everlease import __version__
from everlease.cli import explorer, job, local, provider, store
from everlease.cli.config import load
from everlease.cli.context import Context
from everlease.cli.errors import CliError, ExitCode, explain
from everlease.cli.output import errors, styled


class _Root(TyperGroup):
    """Typer ends a command on Ctrl-C without a word; what was sent and what was not has to be said."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            told = f"interrupted: {error}" if str(error) else "interrupted"
            raise CliError(ExitCode.INTERRUPTED, told) from error


app = typer.Typer(
    cls=_Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run jobs that outlive their hosts, or rent out a machine.",
    epilog="Example: everlease up --nodes 3 && everlease job launch job.yaml --wait",
)
app.add_typer(job.app, name="job")
app.add_typer(provider.app, name="provider")
app.add_typer(explorer.app, name="explorer")
app.add_typer(store.app, name="store")
local.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    market: Annotated[str | None, typer.Option("--market", help="URL of the marketplace.")] = None,
    rpc: Annotated[str | None, typer.Option("--rpc", help="URL of the chain's RPC endpoint.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Your keystore file (geth v3).")] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with the keystore's password.")
    ] = None,
    deployments: Annotated[
        Path | None, typer.Option("--deployments", help="Deployments file of the contracts.")
    ] = None,
    docker_socket: Annotated[Path | None, typer.Option("--docker-socket", help="Daemon that has your images.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Settings: flag, environment (EVERLEASE_MARKET_URL, …), the project's everlease.toml, the user's."""
    flags = {
        "market_url": market,
        "rpc_url": rpc,
        "key_file": key,
        "password_file": password_file,
        "deployments": deployments,
        "docker_socket": docker_socket,
    }
    ctx.obj = Context(load(flags))


def main() -> None:
    """Run one command and leave with its exit code (everlease.cli.errors.ExitCode)."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        # The class that shows itself is private to typer.
        show = getattr(error, "show", None)
        if show is not None:
            show()
        else:
            errors.print(str(error))
        sys.exit(ExitCode.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        errors.print("interrupted")
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.OK)
    except Exception as error:
        known = explain(error)
        if known is None or os.environ.get("EVERLEASE_TRACEBACK"):
            errors.print(styled(("unexpected error", "red"), f": {type(error).__name__}: {error}"))
            raise
        begins = "" if known.code is ExitCode.INTERRUPTED else "error"
        errors.print(styled((begins, "red"), f"{': ' if begins else ''}{known}"), soft_wrap=True)
        sys.exit(known.code)
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


if __name__ == "__main__":
    main()
