"""``python -m provider_agent``: one agent on this host, configured by EVERLEASE_AGENT_* (see settings.py)."""

import asyncio
import logging
import sys

from pydantic import ValidationError

from everlease.chain.errors import ChainError
from provider_agent.agent import Agent
from provider_agent.control import DEPARTED
from provider_agent.errors import AgentError
from provider_agent.runtime.errors import RuntimeFault
from provider_agent.settings import AgentSettings


def main() -> int:
    """Exit code: 0 after a signal, DEPARTED after `stop` or an emptying drain, 2 when it can't start as configured."""
    try:
        settings = AgentSettings()
    except ValidationError as error:
        wrong = ", ".join(f"EVERLEASE_AGENT_{str(item['loc'][0]).upper()} ({item['msg']})" for item in error.errors())
        return _refuse(f"the agent's settings are incomplete: {wrong}")
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        agent = Agent(settings)
    except (AgentError, RuntimeFault, ChainError, ValueError, OSError) as error:
        return _refuse(str(error))
    try:
        left = asyncio.run(agent.run())
    finally:
        agent.close()
    return DEPARTED if left else 0


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"{sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
