"""End the agent of this host in order: its jobs move, the market hears goodbye. What the unit's ExecStop runs.

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
REASON = "the host is going down"


def stop(data_dir: Path, within_s: float, reason: str = REASON) -> dict[str, Any]:
    """The agent's answer, when the time is up at the latest: {"ok", "jobs": [{"job_id", "why"}]}. Raises AgentAway."""
    request = {"command": "stop", "within_s": within_s, "reason": reason}
    try:
        return asyncio.run(ask(data_dir / CONTROL_SOCKET, request, within_s + ANSWER_SLACK_S))
    except (OSError, ValueError, TimeoutError) as error:
        raise AgentAway(f"no agent answers in {data_dir}: is it running on this host? ({error})") from error


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
        print("a restart: the jobs stay and go on")  # noqa: T201 - for the journal
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
