"""A guest as a provider's host: the agent is installed as docs/provider.md says, and set up for one market."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from hosts.folders import clear, locked
from hosts.guest import Guest
from hosts.images import BUILD, Image, image_of, make_disk, run
from hosts.kinds import Kind
from hosts.market import BenchMarket, HostIdentity
from hosts.mirror import Mirror
from hosts.wheels import digest as wheels_digest

UNIT = "everlease-agent.service"
INSTALL = """set -e
python3 -m venv /opt/everlease
/opt/everlease/bin/pip install -q --disable-pip-version-check 'everlease[agent]' everlease-criu
"""
LOG_KEEPER = """#!/bin/bash
# Hard links of all containers' logs, by boot: they outlive the containers, and tell which boot's clock they have.
# No program is started while nothing is new: under emulation each costs a second.
boot=$(cat /proc/sys/kernel/random/boot_id)
mkdir -p /var/lib/bench/$boot && cd /var/lib/bench || exit 1
exec 9<> <(:)
while ! read -t 2 -u 9; do
    for file in /var/lib/docker/containers/*/*-json.log; do
        name=${file##*/}
        for known in */"$name"; do :; done
        [ -e "$known" ] || { [ -e "$file" ] && ln "$file" "$boot/$name" && sync -f .; } 2>/dev/null
    done
done
"""
KEEP_LOGS = """[Unit]
Description=The bench's own copies of the containers' logs

[Service]
ExecStart=/bin/bash /usr/local/sbin/keep-logs

[Install]
WantedBy=multi-user.target
"""
JOIN = """/opt/everlease/bin/everlease --market {market} --rpc {rpc} --deployments /root/deployments.json \\
    --key /root/node.json --password-file /root/node.password provider install --provider {provider} \\
    --set BASE_RATE={rate} --set DOCKER_AWAY_S=400"""


def installed(kind: Kind, mirror: Mirror) -> Image:
    """An image of this kind with this checkout's agent on it; cached by content. Raises BuildFailed.

    The installation runs in the image's own root folder, without emulation: the same commands leave the same files
    there as in a guest, in seconds instead of minutes. `provider install` runs in the guest, see `join`.
    """
    base = image_of(kind)
    recipe = f"{base.root.parent.name} {wheels_digest()} {INSTALL} {LOG_KEEPER} {KEEP_LOGS}"
    folder = BUILD / "installed" / f"{kind.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with locked(folder.parent / f"{kind.name}.lock"):
        if not folder.exists():
            for old in folder.parent.glob(f"{kind.name}-*"):
                shutil.rmtree(old)  # of other code; a guest whose disk is a layer over it is made anew as well
            part = folder.with_name(f"part-{folder.name}")
            clear(part)
            _install(base, mirror.files(kind, "127.0.0.1"), part)
            part.rename(folder)
    return replace(base, disk=folder / "disk.raw")


def _install(base: Image, configuration: dict[str, str], part: Path) -> None:
    part.mkdir(parents=True)
    log, root = part / "log", part / "root"
    run(log, ["cp", "-a", str(base.root), str(root)])
    files = configuration | {
        "usr/local/sbin/keep-logs": LOG_KEEPER,
        "etc/systemd/system/bench-logs.service": KEEP_LOGS,
    }
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    clean = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    run(log, ["chroot", str(root), *clean, "/bin/sh", "-c", INSTALL])
    run(log, ["systemctl", f"--root={root}", "enable", "bench-logs"])
    make_disk(root, part / "disk.raw", log)
    shutil.rmtree(root)


def join(guest: Guest, market: BenchMarket, identity: HostIdentity) -> None:
    """Give the guest its place in the market by `provider install`, which starts the agent."""
    state = market.state
    for name, content in (
        ("node.json", identity.keystore.read_bytes()),
        ("node.password", market.password.encode()),
        ("deployments.json", Path(state.deployments).read_bytes()),
    ):
        guest.must(f"umask 077; cat > /root/{name}", stdin=content)
    # Each asks a little more than the one before, so that an idle market has one cheapest host.
    rate = 50_000 + 500 * identity.index
    guest.must(
        JOIN.format(market=state.market_url, rpc=state.rpc_url, provider=identity.provider, rate=rate), timeout_s=400
    )
    guest.must("systemctl restart bench-logs")
