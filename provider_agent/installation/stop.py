"""End the agent of this host in order: its jobs move, the market hears goodbye. What the unit's ExecStop runs.

Before a restart the market hears only of that: the jobs stay, and the node is not lost while it is away.

`python -m provider_agent.installation.stop DATA_DIR WITHIN_S UNIT` is `everlease provider stop` without the command
line's imports, which cost a slow host seconds of its last minutes.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from provider_agent.control import ask
from provider_agent.installation import systemd
from provider_agent.installation.errors import AgentAway, InstallationError

CONTROL_SOCKET = "agent.sock"
ANSWER_SLACK_S = 15.0
TOLD_S = 2.0
"""How long a restart waits for the agent."""
REASON = "the host is going down"


def stop(data_dir: Path, within_s: float, reason: str = REASON) -> dict[str, Any]:
    """The agent's answer, when the time is up at the latest: {"ok", "jobs": [{"job_id", "why"}]}. Raises AgentAway."""
    request = {"command": "stop", "within_s": within_s, "reason": reason}
    try:
        return asyncio.run(ask(data_dir / CONTROL_SOCKET, request, within_s + ANSWER_SLACK_S))
    except (OSError, ValueError, TimeoutError) as error:
        raise AgentAway(unheard(data_dir, error)) from error


def unheard(data_dir: Path, error: Exception) -> str:
    """Why no agent answered, as a sentence."""
    if isinstance(error, PermissionError):
        return f"{data_dir} is its owner's alone: run this with sudo"
    return f"no agent answers in {data_dir}: is it running on this host? ({error})"


def announce_restart(data_dir: Path) -> str:
    """Have the agent tell the market that it is only restarted; why it could not, or nothing."""

    async def asked() -> dict[str, Any]:
        async with asyncio.timeout(TOLD_S):
            return await ask(data_dir / CONTROL_SOCKET, {"command": "restart"}, TOLD_S)

    try:
        answer = asyncio.run(asked())
    except TimeoutError:
        return "the agent does not answer"
    except (OSError, ValueError) as error:
        return str(error)
    return "" if answer.get("ok") else str(answer.get("error", "no reason given"))


def told(answer: dict[str, Any]) -> str:
    """The answer as a sentence."""
    if not answer.get("ok"):
        return f"the agent did not stop in order: {answer.get('error', 'no reason given')}"
    left = [f"{str(job['job_id'])[:10]} ({job.get('why') or 'no time'})" for job in answer.get("jobs", [])]
    return "the agent has stopped; no job is left here" if not left else f"jobs that are still here: {', '.join(left)}"


def main(words: list[str]) -> int:
    """0 when the agent has ended in order, or is only restarted."""
    data_dir, within_s, unit = words
    if systemd.restarting(unit):
        why = announce_restart(Path(data_dir))
        unheard = f"; the market was not told, and may find this host gone ({why})" if why else ""
        print(f"a restart: the jobs stay and go on{unheard}")  # noqa: T201 - for the journal
        return 0
    try:
        answer = stop(Path(data_dir), float(within_s))
    except InstallationError as error:
        print(error)  # noqa: T201
        return 1
    print(told(answer))  # noqa: T201
    return 0 if answer.get("ok") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
