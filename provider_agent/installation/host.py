"""Make this machine a host, and take that back: files by a record, then systemd, then Docker."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydantic import ValidationError
from pydantic_settings import SettingsError

from provider_agent import guards
from provider_agent.installation import daemon_json, leftovers, systemd, units
from provider_agent.installation.errors import HostRefused
from provider_agent.installation.record import Entry, Record, replace
from provider_agent.runtime import network, oci
from provider_agent.runtime.daemon import reach, use_existing
from provider_agent.runtime.errors import RuntimeNotRegistered
from provider_agent.settings import AgentSettings, wrong_settings

ETC = Path("/etc/everlease")
PREFIX = "EVERLEASE_AGENT_"
SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RELOAD_S = 30.0
OWN = {"DATA_DIR", "DOCKER_SOCKET", "RUNC", "CRIU", "KEYSTORE", "KEYSTORE_PASSWORD", "KEYSTORE_PASSWORD_FILE"}
OWN |= {"DEPLOYMENTS", "PROVIDER"}
"""Settings that an installation makes itself."""
UNFINISHED = "installation-unfinished"
"""A file that says that the agent may still run with the settings of before."""
NEEDED = {
    "dockerd": "docker.io",
    "runc": "runc",
    "iptables": "iptables",
    "tar": "tar",
    "nsenter": "util-linux",
    "ss": "iproute2",
}
"""A command that the agent runs → the Debian package that has it."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class HostPlan:
    """What to install. ``settings``: names of AgentSettings in upper case without the prefix; paths are added."""

    data_dir: Path
    docker_socket: Path
    keystore: bytes
    password: str = field(repr=False)
    deployments: bytes
    settings: dict[str, str]
    stop_within_s: int
    criu: Path | None

    def environment(self, runc: Path) -> dict[str, str]:
        """All of the agent's environment. The password is in a file of its own."""
        found = {
            **self.settings,
            "DATA_DIR": str(self.data_dir),
            "DOCKER_SOCKET": str(self.docker_socket),
            "RUNC": str(runc),
            "KEYSTORE": str(ETC / "node.json"),
            "KEYSTORE_PASSWORD_FILE": str(ETC / "keystore.password"),
            "DEPLOYMENTS": str(ETC / "deployments.json"),
        }
        if self.criu is not None:
            found["CRIU"] = str(self.criu)
        return {f"{PREFIX}{name}": value for name, value in found.items()}


def installed() -> dict[str, str]:
    """The settings of an installation on this machine, without the prefix; none where there is none."""
    try:
        text = (ETC / "agent.env").read_text(encoding="utf-8")
    except OSError:
        return {}
    return {name.removeprefix(PREFIX): value for name, value in units.read_environment(text).items()}


def files(plan: HostPlan, runc: Path, python: Path) -> dict[Path, tuple[str | bytes, int]]:
    """Path → content and mode of every file but daemon.json. Pure."""
    unit = units.AgentUnit(python, plan.data_dir, ETC / "agent.env", plan.stop_within_s)
    texts = units.slices() | units.guards() | {units.AGENT_UNIT: units.agent_service(unit)}
    return {
        ETC / "node.json": (plan.keystore, 0o600),
        ETC / "keystore.password": (f"{plan.password}\n", 0o600),
        ETC / "deployments.json": (plan.deployments, 0o600),
        ETC / "agent.env": (units.environment_file(plan.environment(runc)), 0o600),
        **{units.UNITS / name: (text, 0o644) for name, text in texts.items()},
    }


def install(plan: HostPlan, say: Say, *, start: bool = True) -> None:
    """Write and enable everything, and start the agent; again is fine. Raises InstallationError, RuntimeFault, OSError.

    An agent that runs is restarted where its settings changed, now or in an installation that was broken off; its
    jobs go on meanwhile.
    """
    systemd.require()
    runc = check_tools()
    refuse_wrong_settings(plan.environment(runc))
    refuse_to_forget_jobs(plan)
    reach(plan.docker_socket).close()
    plan.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    wrapper = oci.install_wrapper(plan.data_dir / "runtime", runc=runc, criu=plan.criu)
    record = Record.load(ETC)
    wanted = files(plan, runc, Path(sys.executable))
    mark = plan.data_dir / UNFINISHED
    broken_off = mark.exists()
    mark.touch()
    changed = [path for path, (content, mode) in wanted.items() if record.write(path, content, mode)]
    for path in changed:
        say(f"wrote {path}")
    register_runtime(record, plan.docker_socket, wrapper, say)
    systemd.systemctl("daemon-reload")
    systemd.systemctl("enable", "--quiet", units.AGENT_UNIT)
    if not start:
        return
    running = systemd.shown(units.AGENT_UNIT, "ActiveState") in {"active", "activating", "reloading"}
    systemd.systemctl("restart" if running and (changed or broken_off) else "start", units.AGENT_UNIT)
    mark.unlink()
    say(f"{units.AGENT_UNIT} runs and starts with the machine; its log: journalctl -u {units.AGENT_UNIT}")


def refuse_wrong_settings(environment: dict[str, str]) -> None:
    """An agent that can't start would be started again and again, and one that runs would not come back.

    Raises HostRefused.
    """
    try:
        AgentSettings.of_environment(environment)
    except (ValidationError, SettingsError) as error:
        raise HostRefused(f"the agent would not start: {wrong_settings(error)}") from error


def refuse_to_forget_jobs(plan: HostPlan) -> None:
    """Another data folder or node would begin with an empty journal, and remove the old one's jobs as nobody's.

    Raises HostRefused.
    """
    old = installed().get("DATA_DIR")
    if old is None or (Path(old) == plan.data_dir and _node(ETC / "node.json") == _address(plan.keystore)):
        return
    jobs = leftovers.unfinished(Path(old) / "journal.db")
    if jobs:
        raise HostRefused(
            f"the agent that is installed here still has {len(jobs)} jobs, which another data folder or node would "
            "lose: have them moved ('everlease provider drain') before you install anew"
        )


def _node(keystore: Path) -> str:
    try:
        return _address(keystore.read_bytes())
    except OSError:
        return ""


def _address(keystore: bytes) -> str:
    try:
        return str(json.loads(keystore).get("address", "")).lower().removeprefix("0x")
    except (ValueError, AttributeError):
        return ""


def check_tools() -> Path:
    """runc's path, once every command is there. Raises HostRefused that names the missing packages."""
    missing = [package for tool, package in NEEDED.items() if shutil.which(tool, path=SBIN) is None]
    if missing:
        raise HostRefused(f"packages are missing: run 'apt-get install -y {' '.join(missing)}'")
    return Path(str(shutil.which("runc", path=SBIN)))


def register_runtime(record: Record, socket: Path, wrapper: Path, say: Say) -> None:
    """Put the runtime into daemon.json and have Docker read it; containers live on.

    Raises HostRefused, RuntimeFault.
    """
    words = docker_command_line()
    if "--add-runtime" in " ".join(words):
        raise HostRefused(
            "dockerd is started with --add-runtime: move its runtimes to daemon.json, which Docker reloads"
        )
    write_runtime(record, config_file(words), wrapper, say)
    reload_docker()
    give_up = time.monotonic() + RELOAD_S
    while True:
        try:
            use_existing(socket, wrapper).close()
            return
        except RuntimeNotRegistered:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.2)


def write_runtime(record: Record, config: Path, wrapper: Path, say: Say) -> None:
    """The runtime into this daemon.json, where it isn't in it yet. Raises HostRefused, OSError."""
    current = config.read_text(encoding="utf-8") if config.exists() else None
    wanted = daemon_json.with_runtime(current, oci.RUNTIME_NAME, str(wrapper))
    mode = config.stat().st_mode & 0o7777 if current is not None else 0o644
    if wanted != current:
        record.write(config, wanted, mode, shared=True)
        say(f"registered the runtime '{oci.RUNTIME_NAME}' in {config}")


def docker_command_line() -> list[str]:
    """dockerd's words as it runs now, none when it doesn't."""
    pid = systemd.shown("docker.service", "MainPID")
    if not pid.isdigit() or pid == "0":
        systemd.systemctl("start", "docker.service")
        pid = systemd.shown("docker.service", "MainPID")
    try:
        return list(psutil.Process(int(pid)).cmdline())
    except (psutil.NoSuchProcess, ValueError):
        return []


def config_file(words: list[str]) -> Path:
    """Docker's daemon.json, wherever its command line says."""
    for place, word in enumerate(words):
        if word == "--config-file" and place + 1 < len(words):
            return Path(words[place + 1])
        if word.startswith("--config-file="):
            return Path(word.partition("=")[2])
    return Path("/etc/docker/daemon.json")


def reload_docker() -> None:
    """SIGHUP: Docker reads its runtimes anew and no container notices."""
    if not systemd.tried("reload", "docker.service"):
        systemd.systemctl("kill", "--kill-who=main", "--signal=HUP", "docker.service")


def uninstall(data_dir: Path, socket: Path, say: Say, *, force: bool = False, purge: bool = False) -> None:
    """Stop the agent (which moves its jobs), then put every file back. Raises InstallationError, RuntimeFault, OSError.

    Refused where Docker does not answer, and while jobs are here that the agent did not leave in order, unless
    ``force`` removes them. ``purge`` deletes the data folder too: the journal, the node's sealing key, cached blocks.
    """
    systemd.require()
    record = Record.load(ETC)
    engine = leftovers.engine_of(data_dir, socket, force=force)
    systemd.tried("disable", "--quiet", "--now", units.AGENT_UNIT)
    if engine is not None:
        try:
            leftovers.remove_jobs(engine, data_dir, say, force=force)
            leftovers.remove_images(engine, say)
        finally:
            engine.close()
    else:
        say("Docker does not answer: containers, networks and images of ours stay in it")
    guards.teardown(data_dir / "runtime")
    network.Firewall(None).remove()
    put_back(record, say)
    (data_dir / UNFINISHED).unlink(missing_ok=True)
    systemd.systemctl("daemon-reload")
    systemd.tried("reset-failed", units.AGENT_UNIT)
    for name in ("everlease-agent.slice", "everlease-guards.slice", "everlease-jobs.slice", "everlease.slice"):
        systemd.tried("stop", name)
    if engine is not None:
        reload_docker()
    say("Docker may list the runtime until its own next start; nothing uses it any more")
    if purge:
        shutil.rmtree(data_dir, ignore_errors=True)
        say(f"deleted {data_dir}")
    record.close()


def put_back(record: Record, say: Say) -> None:
    """Every file of the record as it was; of what others changed only our part goes. Raises HostRefused, OSError."""
    for entry in reversed(list(record.files)):
        if record.undo(entry):
            say(f"put {entry.path} back")
        elif entry.shared:
            _merge_out(record, entry)
            say(f"took the runtime out of {entry.path}, which others changed meanwhile")
        else:
            say(f"left {entry.path} alone: somebody changed it after the installation")
            record.drop(entry)


def _merge_out(record: Record, entry: Entry) -> None:
    """Take the runtime out of a daemon.json that others changed after us."""
    raw = record.before(entry)
    before = raw.decode() if raw is not None else None
    file = Path(entry.path)
    text = daemon_json.without_runtime(file.read_text(encoding="utf-8"), oci.RUNTIME_NAME, before)
    if text is None:
        file.resolve().unlink()
    else:
        replace(file, text.encode(), file.stat().st_mode & 0o7777)
    record.drop(entry)
