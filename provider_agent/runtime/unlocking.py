"""Give a container the network back that a killed CRIU left locked.

Before it looks at the first task, CRIU shuts off the container's network: by a chain CRIU of iptables and ip6tables, or
by a table `inet CRIU-…` of nftables. It undoes that at its own end.
"""

import shutil
from pathlib import Path
from subprocess import SubprocessError

from provider_agent import guard
from provider_agent.guard import find_freezer
from provider_agent.runtime.commands import run

_CHAIN, _TABLE = "CRIU", "CRIU-"


def unlock(folder: Path) -> bool:
    """Take CRIU's rules out of the container's network; whether none is left. Again is fine.

    Nothing is to be done for a container that ended.
    """
    init = guard.init_of(folder)
    if init is None or find_freezer(folder) is None:
        return True
    netns = Path(f"/proc/{init}/ns/net")
    try:
        done = _drop_chain(netns, "iptables", needed=True) and _drop_chain(netns, "ip6tables", needed=False)
        done = done and _drop_tables(netns)
    except (OSError, SubprocessError):
        done = False
    return done or not netns.exists()


def _drop_chain(netns: Path, tool: str, *, needed: bool) -> bool:
    """Whether the chain is gone; a tool that isn't `needed` may fail, as ip6tables does on a host without IPv6."""
    listed = run([tool, "-w", "-S"], netns=netns)
    if listed.returncode:
        return not needed
    rules = listed.stdout.splitlines()
    if f"-N {_CHAIN}" not in rules:
        return True
    # Each dump that was cut off has put its own jumps before all other rules.
    jumps = [rule.replace("-A", "-D", 1) for rule in rules if rule.endswith(f"-j {_CHAIN}")]
    text = "\n".join(("*filter", *jumps, f"-F {_CHAIN}", f"-X {_CHAIN}", "COMMIT", ""))
    return run([f"{tool}-restore", "-w", "--noflush"], netns=netns, text=text).returncode == 0


def _drop_tables(netns: Path) -> bool:
    """The same for nftables, which CRIU takes by a library of its own; without `nft` none can be seen."""
    if shutil.which("nft") is None:
        return True
    done = True
    for line in run(["nft", "list", "tables", "inet"], netns=netns).stdout.splitlines():
        name = line.rpartition(" ")[2]
        if name.startswith(_TABLE):
            done = run(["nft", "delete", "table", "inet", name], netns=netns).returncode == 0 and done
    return done
