"""``python -m provider_agent``: one agent on this host, configured by EVERLEASE_AGENT_* (see settings.py)."""

import asyncio
import logging
import os
import sys
from typing import NoReturn

from pydantic import ValidationError
from pydantic_settings import SettingsError

from everlease.chain.errors import ChainError
from provider_agent.agent import Agent
from provider_agent.control import DEPARTED
from provider_agent.errors import AgentError
from provider_agent.runtime.errors import RuntimeFault
from provider_agent.settings import AgentSettings, wrong_settings

log = logging.getLogger(__name__)


def main() -> int:
    """Exit code: 0 after a signal, DEPARTED after `stop` or an emptying drain, 2 when it can't start as configured."""
    try:
        settings = AgentSettings()
    except (ValidationError, SettingsError) as error:
        return _refuse(f"the agent's settings are incomplete: {wrong_settings(error)}")
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        agent = Agent(settings)
    except (AgentError, RuntimeFault, ChainError, ValueError, OSError) as error:
        return _refuse(str(error))
    return asyncio.run(_serve(agent))


async def _serve(agent: Agent) -> NoReturn:
    """Serve, then leave at once: a thread may wait for a Docker that hangs, and the next agent waits for our end."""
    code = 1
    try:
        try:
            code = DEPARTED if await agent.run() else 0
        finally:
            agent.close()
    except Exception:
        code = 1
        log.exception("the agent ends by a fault")
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"{sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
