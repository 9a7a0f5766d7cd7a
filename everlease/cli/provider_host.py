"""`everlease provider install | doctor | uninstall | stop`: this machine as a host under systemd."""

import difflib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from everlease.chain.deployment import Deployment
from everlease.cli.config import Config
from everlease.cli.context import of
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.options import Json
from everlease.cli.output import console, emit_json, styled
from everlease.wire.http import MarketOut
from provider_agent.installation import stop as ending

DEFAULT_DATA = Path("/var/lib/everlease")
DEFAULT_DOCKER = Path("/run/docker.sock")
DataDir = Annotated[Path, typer.Option("--data-dir", help="The agent's data folder on this host.")]
Docker = Annotated[Path, typer.Option("--docker", help="Socket of the host's Docker daemon.")]
Installed = Annotated[
    Path | None, typer.Option("--data-dir", help="The agent's data folder, if not the installed one.")
]
InstalledDocker = Annotated[Path | None, typer.Option("--docker", help="Docker's socket, if not the installed one.")]


class _Telling:
    """Prints each step as it is done, and keeps it for --json."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet, self.lines = quiet, list[str]()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if not self.quiet:
            console.print(line, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands to `everlease provider`."""
    app.command(
        epilog="Example: everlease --market URL --rpc URL --deployments deployments.json --key node.json "
        "provider install --provider 0xabc…"
    )(install)
    app.command(epilog="Example: everlease provider doctor")(doctor)
    app.command(epilog="Example: everlease provider uninstall")(uninstall)
    app.command(epilog="Example: everlease provider stop --within 120")(stop)


def install(
    ctx: typer.Context,
    provider: Annotated[str, typer.Option("--provider", help="Address of the provider whose stake backs the bids.")],
    data_dir: DataDir = DEFAULT_DATA,
    docker_socket: Docker = DEFAULT_DOCKER,
    criu: Annotated[Path | None, typer.Option("--criu", help="Another CRIU than the installed wheel's.")] = None,
    stop_within: Annotated[
        int, typer.Option("--stop-within", min=5, max=3600, help="Seconds that a stop or reboot grants to moving jobs.")
    ] = 120,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A further setting of the agent, NAME=VALUE; may be repeated.")
    ] = None,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start the agent at once.")] = True,
    as_json: Json = False,
) -> None:
    """Make this machine a host: units, runtime, CRIU; the agent starts now and with the machine. Again is fine."""
    from provider_agent.installation import host, systemd
    from provider_agent.installation.criu import bundled
    from provider_agent.runtime.capability import version_of

    systemd.require()
    context = of(ctx)
    config = context.config
    key_file, rpc_url, deployments = of_agent(config)
    if criu is not None and not version_of(criu.absolute(), r"Version: (\S+)"):
        raise CliError(ExitCode.USAGE, f"--criu {criu} is no CRIU that runs")
    further = _further(setting or [])
    deployment = Deployment.load(deployments)
    node = context.unlock(key_file)
    terms = context.terms
    warning = check_market(terms, deployment, rpc_url, node.key.address, provider)
    settings = {
        "PROVIDER": provider,
        "GATEWAY_URL": config.market_url.replace("http", "ws", 1).rstrip("/") + "/v1/node",
        "STORE_URL": terms.store_url,
        "RPC_URLS": json.dumps([rpc_url]),
        "WATCHERS": json.dumps([terms.watcher]),
    }
    plan = host.HostPlan(
        data_dir=data_dir.resolve(),
        docker_socket=docker_socket.resolve(),
        keystore=key_file.read_bytes(),
        password=node.password,
        deployments=deployments.read_bytes(),
        settings=settings | further,
        stop_within_s=stop_within,
        criu=criu.absolute() if criu is not None else bundled(),
    )
    done = _Telling(quiet=as_json)
    host.install(plan, done, start=start)
    if warning:
        done(warning)
    if plan.criu is None:
        done("no CRIU is installed here: jobs run in 'files' mode only, until 'pip install everlease_criu-….whl'")
    if as_json:
        emit_json({"done": done.lines})


def doctor(
    data_dir: Installed = None,
    docker_socket: InstalledDocker = None,
    criu: Annotated[Path | None, typer.Option("--criu", help="Another CRIU than the installed one.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what this machine is worth as a host: its parts, and a small container dumped and restored on it."""
    from provider_agent import cgroups
    from provider_agent.installation import doctor as surgery
    from provider_agent.installation import host
    from provider_agent.installation.criu import bundled

    known = host.installed()
    folder, socket = _places(known, data_dir, docker_socket)
    told = Path(known["CRIU"]) if "CRIU" in known else None
    findings = []
    marks = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "bad": ("bad ", "red")}
    root, installed = known.get("SLICE", cgroups.ROOT), known.get("DATA_DIR") == str(folder)
    for finding in surgery.examine(folder, socket, criu or told or bundled(), root=root, installed=installed):
        findings.append(finding)
        if not as_json:
            console.print(styled(marks[finding.state], f" {finding.sentence}"), soft_wrap=True)
    if as_json:
        emit_json({"findings": [asdict(finding) for finding in findings]})
    bad = [finding.sentence for finding in findings if finding.state == "bad"]
    if bad:
        raise CliError(ExitCode.UNAVAILABLE, f"this machine can't be a host yet: {bad[0]}")


def uninstall(
    data_dir: Installed = None,
    docker_socket: InstalledDocker = None,
    force: Annotated[bool, typer.Option("--force", help="Remove jobs that are still here.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Delete the data folder too.")] = False,
    as_json: Json = False,
) -> None:
    """Move the jobs away, stop the agent, and leave this machine as it was before the installation."""
    from provider_agent.installation import host

    done = _Telling(quiet=as_json)
    folder, socket = _places(host.installed(), data_dir, docker_socket)
    host.uninstall(folder, socket, done, force=force, purge=purge)
    if as_json:
        emit_json({"done": done.lines})


def stop(
    data_dir: Installed = None,
    within: Annotated[float, typer.Option("--within", min=0, help="Seconds for moving the jobs.")] = 120.0,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the jobs' histories.")] = ending.REASON,
    as_json: Json = False,
) -> None:
    """Move this host's jobs, say goodbye to the market, and end the agent. Under systemd: 'systemctl stop'."""
    answer = ending.stop(data_folder(data_dir), within, reason)
    if not answer.get("ok"):
        raise CliError(ExitCode.UNAVAILABLE, ending.told(answer))
    if as_json:
        emit_json(answer)
    else:
        console.print(ending.told(answer))


def _places(known: dict[str, str], data_dir: Path | None, socket: Path | None) -> tuple[Path, Path]:
    """Data folder and Docker's socket: as given, as installed, or the usual ones."""
    folder = data_dir or Path(known.get("DATA_DIR", DEFAULT_DATA))
    return folder.resolve(), (socket or Path(known.get("DOCKER_SOCKET", DEFAULT_DOCKER))).resolve()


def data_folder(given: Path | None) -> Path:
    """The agent's data folder: as given, as installed, or the usual one."""
    from provider_agent.installation import host

    return _places(host.installed(), given, None)[0]


def of_agent(config: Config) -> tuple[Path, str, Path]:
    """Keystore, RPC and deployments file, which every agent has. Raises CliError that names what is missing."""
    found = {"--key (the node's keystore)": config.key_file, "--rpc": config.rpc_url}
    found["--deployments"] = config.deployments
    missing = [option for option, value in found.items() if value is None]
    if config.key_file is None or config.rpc_url is None or config.deployments is None:
        raise CliError(ExitCode.USAGE, f"an agent needs {', '.join(missing)}: options that go before 'provider'")
    return config.key_file, config.rpc_url, config.deployments


def check_market(terms: MarketOut, deployment: Deployment, rpc_url: str, node: str, provider: str) -> str:
    """Chain, market and contracts belong together, else no agent starts with them. Returns what is told where the
    market would not admit the node yet. Raises CliError, WrongChain, BadDeployment, ChainError.
    """
    from everlease.chain.rpc import RpcChain
    from everlease.chain.views import Views

    if (terms.chain_id, terms.escrow.lower()) != (deployment.chain_id, deployment.escrow.lower()):
        raise CliError(
            ExitCode.USAGE,
            f"--deployments is of another market: its escrow is {deployment.escrow} on chain {deployment.chain_id}, "
            f"this market's {terms.escrow} on chain {terms.chain_id}",
        )
    chain = RpcChain.connect([rpc_url], chain_id=deployment.chain_id)
    try:
        deployment.check(chain)
        found = Views(chain, deployment).provider_of(node)
    finally:
        chain.close()
    if found is not None and found.lower() == provider.lower():
        return ""
    whose = f"provider {found} answers for it" if found else "no provider answers for it"
    return (
        f"the market will not admit node {node} for {provider}: {whose}. "
        "The wallet's 'everlease provider nodes authorise --node' changes that; the agent goes on trying"
    )


def _further(listed: list[str]) -> dict[str, str]:
    """NAME=VALUE pairs, checked against the agent's settings. Raises CliError."""
    from provider_agent.installation import host
    from provider_agent.settings import AgentSettings

    known, found = [name.upper() for name in AgentSettings.model_fields], {}
    for item in listed:
        name, equals, value = item.partition("=")
        name = name.upper()
        near = difflib.get_close_matches(name.removeprefix(host.PREFIX).replace("-", "_"), known, 1)
        if not equals:
            raise CliError(ExitCode.USAGE, f"--set {item!r}: give NAME=VALUE")
        if name not in known:
            meant = f"; do you mean {near[0]}?" if near else f": there are {', '.join(known)}"
            raise CliError(ExitCode.USAGE, f"--set {item!r}: the agent has no setting {name}{meant}")
        if name in host.OWN:
            raise CliError(ExitCode.USAGE, f"--set {item!r}: the installation sets {name} itself; see the options")
        found[name] = value
    return found
