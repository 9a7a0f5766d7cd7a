"""A virtual machine: boot it, run commands in it as root, cut its power or its link, stop it.

A guest's folder holds its disk (a layer over an image), its console's log and QEMU's pid; a short folder under /tmp
holds the sockets of QEMU's monitor and of ssh's control connection, so that one key exchange serves all commands.
Any process may take a guest up by its folder.
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from hosts.images import Image
from hosts.qmp import Monitor

BOOT_S = 420.0
"""How long a guest may take to answer by ssh, on a machine that others use as well."""
NICE = 5
"""The market outside must answer while guests keep every core busy."""


class GuestError(Exception):
    """A guest did not do what it was asked to; the message says which and what."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended in a guest."""

    code: int
    out: str
    err: str


class Guest:
    """One guest, kept in ``folder``."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        # The path of a unix socket has at most 107 bytes, and ssh adds 17 to its own while it binds it.
        self._sockets = (
            Path("/tmp") / f"everlease-guest-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"
        )

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def monitor(self) -> Monitor:
        return Monitor(self._sockets / "qmp")

    @property
    def port(self) -> int:
        """The machine's port that leads to the guest's ssh."""
        return int(self._config()["port"])

    def create(self, image: Image, *, append: str = "", memory_mib: int = 2048) -> None:
        """A fresh layer over the image's disk; the guest is not started. Raises GuestError."""
        self.remove()
        self.folder.mkdir(parents=True, mode=0o700)
        config = {"port": _free_port(), "memory": memory_mib, "key": str(image.key), "base": str(image.disk)}
        self.use(image, append=append, config=config)
        kind = "qcow2" if image.disk.suffix == ".qcow2" else "raw"
        _must(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", kind, str(self.disk)])

    def use(self, image: Image, *, append: str = "", config: dict[str, object] | None = None) -> None:
        """Boot with this image's kernel from the next start on; the disk stays."""
        words = f"{image.append} {append}".strip()
        boot = {"kernel": str(image.kernel), "initrd": str(image.initrd), "append": words}
        (self.folder / "guest.json").write_text(json.dumps({**(config or self._config()), **boot}), encoding="utf-8")

    def made_of(self, image: Image) -> bool:
        """Whether its disk is a layer over this image's."""
        return self.disk.exists() and self._config()["base"] == str(image.disk)

    def start(self, *, wait: bool = True) -> None:
        """Power on; with ``wait`` return when ssh answers. Raises GuestError."""
        if self.running():
            raise GuestError(f"{self.name} runs already")
        shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets.mkdir(mode=0o700)
        config = self._config()
        argv = [
            "nice", "-n", str(NICE), "qemu-system-x86_64", "-name", self.name, "-nodefaults", "-no-user-config",
            "-display", "none", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", "1",
            "-m", str(config["memory"]), "-rtc", "clock=host,base=utc",
            "-kernel", str(config["kernel"]), "-initrd", str(config["initrd"]), "-append", str(config["append"]),
            "-drive", f"file={self.disk},format=qcow2,if=virtio,cache=unsafe,discard=unmap",
            "-netdev", "user,id=nic0", "-device", "virtio-net-pci,netdev=nic0,id=nic0",
            "-netdev", f"user,id=bench,net=10.0.9.0/24,restrict=on,hostfwd=tcp:127.0.0.1:{config['port']}-10.0.9.15:22",
            "-device", "virtio-net-pci,netdev=bench,id=bench,mac=52:54:00:12:34:99", "-device", "virtio-rng-pci",
            "-serial", f"file:{self.folder / 'console'}", "-qmp", f"unix:{self._sockets / 'qmp'},server=on,wait=off",
            "-pidfile", str(self.folder / "pid"),
        ]  # fmt: skip
        with (self.folder / "qemu.log").open("ab") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        process.returncode = 0  # it outlives us on purpose
        with contextlib.suppress(OSError):  # where sessions are scheduled as groups, niceness counts within one alone
            Path(f"/proc/{process.pid}/autogroup").write_text(str(NICE), encoding="ascii")
        if wait:
            self.await_ssh()

    def await_ssh(self, timeout_s: float = BOOT_S) -> float:
        """Wait until a command runs in the guest; returns how long that took. Raises GuestError."""
        began = time.monotonic()
        while time.monotonic() < began + timeout_s:
            if time.monotonic() > began + 5 and not self.running():
                raise GuestError(f"{self.name}: QEMU ended, see {self.folder / 'qemu.log'}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.run("true", timeout_s=30).code == 0:
                    return time.monotonic() - began
            time.sleep(1)
        raise GuestError(f"{self.name} did not answer by ssh within {timeout_s:.0f} s, see {self.folder / 'console'}")

    def await_off(self, timeout_s: float = BOOT_S) -> None:
        """Wait until it has switched itself off. Raises GuestError."""
        give_up = time.monotonic() + timeout_s
        while self.running():
            if time.monotonic() > give_up:
                raise GuestError(f"{self.name} did not switch itself off within {timeout_s:.0f} s")
            time.sleep(0.5)
        self._close_ssh()

    def running(self) -> bool:
        """Whether its QEMU lives."""
        return self._pid() is not None

    def run(self, script: str, *, stdin: bytes | None = None, timeout_s: float = 300) -> Done:
        """Run a shell script as root. Raises subprocess.TimeoutExpired."""
        argv = [*self.ssh_command(), "--", script]
        done = subprocess.run(argv, input=stdin or b"", capture_output=True, timeout=timeout_s, check=False)
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def must(self, script: str, *, stdin: bytes | None = None, timeout_s: float = 300) -> str:
        """Run a shell script as root; returns its output. Raises GuestError."""
        try:
            done = self.run(script, stdin=stdin, timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            raise GuestError(f"{self.name}: '{_short(script)}' did not end within {timeout_s:.0f} s") from None
        if done.code:
            text = (done.err.strip() or done.out.strip())[-600:]
            raise GuestError(f"{self.name}: '{_short(script)}' ended with {done.code}: {text}")
        return done.out

    def put(self, source: Path, target: str) -> None:
        """Copy a file or a folder's content to ``target`` (a folder is made)."""
        pack = ["tar", "-C", str(source if source.is_dir() else source.parent), "-czf", "-"]
        pack.append("." if source.is_dir() else source.name)
        data = subprocess.run(pack, capture_output=True, check=True).stdout
        self.must(f"mkdir -p {shlex.quote(target)} && tar -C {shlex.quote(target)} -xzf -", stdin=data)

    def power_cut(self) -> None:
        """SIGKILL QEMU: what was not written to the disk is gone."""
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        give_up = time.monotonic() + 10
        while self.running() and time.monotonic() < give_up:
            time.sleep(0.05)
        self._close_ssh()

    def link(self, *, up: bool) -> None:
        """Plug the network cable in or out; the bench's own way in stays."""
        self.monitor.ask("set_link", name="nic0", up=up)

    def power_button(self) -> None:
        """Press it: the guest shuts itself down."""
        self.monitor.ask("system_powerdown")

    def remove(self) -> None:
        """Cut the power and delete the guest's folder."""
        if self.folder.exists():
            self.power_cut()
        for folder in (self.folder, self._sockets):
            shutil.rmtree(folder, ignore_errors=True)

    def ssh_command(self) -> list[str]:
        """The words of an ssh that leads into the guest."""
        config = self._config()
        options = [
            "ControlMaster=auto", f"ControlPath={self._sockets / 'ssh'}", "ControlPersist=600", "LogLevel=ERROR",
            "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=20", "ServerAliveInterval=15",
            "ServerAliveCountMax=8", f"IdentityFile={config['key']}", "IdentitiesOnly=yes",
        ]  # fmt: skip
        words = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "none", *words, "-p", str(config["port"]), "root@127.0.0.1"]

    def _close_ssh(self) -> None:
        argv = [*self.ssh_command()[:-1], "-O", "exit", "root@127.0.0.1"]
        subprocess.run(argv, capture_output=True, check=False)
        (self._sockets / "ssh").unlink(missing_ok=True)

    def _config(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "guest.json").read_text(encoding="utf-8")))

    def _pid(self) -> int | None:
        """QEMU's pid, if it is really this guest's."""
        try:
            pid = int((self.folder / "pid").read_text(encoding="ascii"))
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return pid if str(self.disk) in words and state not in "ZX" else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _must(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError(f"'{argv[0]}' failed: {done.stderr.strip()}")


def _short(script: str) -> str:
    return script if len(script) < 100 else script[:97] + "…"
