"""The texts of systemd's units for a host. Pure.

    everlease.slice             everything of ours
      everlease-agent.slice     the agent's service; dumps run in it
      everlease-guards.slice    a guard per container: above all others in every weight
      everlease-jobs.slice      jobs; one slice per container below it, by the drop-in everlease-jobs-.slice.d

The slices have no default dependencies: a slice that systemd stops at shutdown takes the containers' scopes with it,
while the agent still checkpoints what runs in them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from provider_agent import cgroups
from provider_agent.control import DEPARTED

AGENT_UNIT = "everlease-agent.service"
UNITS = Path("/etc/systemd/system")
# The agent may use this long beyond the drain, for its goodbye and its own end.
STOP_SLACK_S = 30

_SLICE = """[Unit]
Description={description}
Documentation=https://github.com/everlease/everlease/blob/main/docs/provider.md
DefaultDependencies=no

[Slice]
{settings}
"""


@dataclass(frozen=True)
class AgentUnit:
    """What the service's text depends on. ``stop_within_s``: seconds that a stop or a reboot grants to the drain."""

    python: Path
    data_dir: Path
    environment: Path
    stop_within_s: int


def agent_service(unit: AgentUnit) -> str:
    """everlease-agent.service.

    After docker.service and the network, so that at a shutdown both wait until the agent has moved its jobs; Wants and
    not Requires, so that a restart of Docker doesn't restart the agent. KillMode=process: what else is in the cgroup is
    a dump under way, which ends by itself and which the next agent waits for; killing CRIU would hurt the job.
    An agent that has left stays away until it is started or the machine boots; whatever else ends it, it comes back.
    """
    stop = f"{_quoted(unit.python)} -m provider_agent.installation.stop {_quoted(unit.data_dir)} {unit.stop_within_s}"
    return f"""[Unit]
Description=Everlease agent
Documentation=https://github.com/everlease/everlease/blob/main/docs/provider.md
Wants=network-online.target docker.service
After=network.target network-online.target nss-lookup.target docker.service containerd.service
RequiresMountsFor={_quoted(unit.data_dir)}
StartLimitIntervalSec=0

[Service]
Type=exec
Slice=everlease-agent.slice
EnvironmentFile={unit.environment}
ExecStart={_quoted(unit.python)} -m provider_agent
ExecStop=-{stop} {AGENT_UNIT}
TimeoutStopSec={unit.stop_within_s + STOP_SLACK_S}
KillMode=process
Restart=always
RestartSec=2
RestartPreventExitStatus={DEPARTED}
SuccessExitStatus={DEPARTED}
OOMScoreAdjust=-900
ManagedOOMPreference=omit
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def slices() -> dict[str, str]:
    """File name below UNITS → text, of the slices and of the drop-in for each container's slice.

    On cgroup v1 systemd maps the weights to shares and leaves the memory protection out.
    """
    low, weights = cgroups.MEMORY_LOW, cgroups.WEIGHTS
    above = f"MemoryLow={low}"
    found = {
        "everlease.slice": ("Everlease", f"MemoryLow={2 * low}"),
        "everlease-agent.slice": ("Everlease: the agent and its dumps", f"{_weights(weights['agent'])}\n{above}"),
        "everlease-guards.slice": ("Everlease: one guard per container", f"{_weights(weights['guards'])}\n{above}"),
        "everlease-jobs.slice": ("Everlease: jobs", _weights(weights["jobs"])),
    }
    texts = {name: _SLICE.format(description=text, settings=body) for name, (text, body) in found.items()}
    dropin = f"[Unit]\nDefaultDependencies=no\n\n[Slice]\n{_weights(100)}\n"
    return texts | {"everlease-jobs-.slice.d/50-everlease.conf": dropin}


def guards() -> dict[str, str]:
    """The same of the drop-in for each guard's service, which PID 1 makes up at the agent's word. systemd-oomd looks at
    the cgroups that hold processes, so a slice above them would not spare them (oomd.conf(5), systemd 252).
    """
    return {"everlease-guard-.service.d/50-everlease.conf": "[Service]\nManagedOOMPreference=omit\n"}


def environment_file(settings: dict[str, str]) -> str:
    """Lines for EnvironmentFile=; values are quoted as systemd reads them. Raises ValueError for a line break."""
    lines = []
    for name, value in sorted(settings.items()):
        if "\n" in value or "\r" in value:
            raise ValueError(f"the setting {name} holds a line break")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`").replace("$", "\\$")
        lines.append(f'{name}="{escaped}"')
    return "\n".join(lines) + "\n"


def read_environment(text: str) -> dict[str, str]:
    """The inverse of environment_file."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name] = re.sub(r"\\(.)", r"\1", value.removeprefix('"').removesuffix('"'))
    return found


def _weights(weight: int) -> str:
    return f"CPUWeight={weight}\nIOWeight={weight}"


def _quoted(path: Path) -> str:
    """A path as a word of a unit's command line: systemd reads %, $, quotes and backslashes itself."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if text != str(path) or " " in text else text
