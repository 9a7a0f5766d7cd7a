"""The answer to a command: what its work returned, or why it failed, in words and without the host's secrets."""

import logging
from collections.abc import Awaitable
from typing import Any

from requests.exceptions import RequestException

from everlease.store.errors import StoreError
from everlease.wire.commands import Command, CommandResult
from provider_agent.errors import AgentError, StepFailed
from provider_agent.runtime.errors import RuntimeFault

log = logging.getLogger(__name__)
SENTENCE, LOG_TAIL = 2000, 4000
AWAY = "the host's Docker daemon does not answer"


async def answer(command: Command, work: Awaitable[dict[str, Any]]) -> CommandResult:
    """Wait for the work of a command; its result in any case, so that the marketplace never waits for nothing."""
    try:
        return _result(command, ok=True, result=await work)
    except StepFailed as error:
        return _result(command, error=error.sentence, retryable=error.retryable, result=error.data)
    except (AgentError, RuntimeFault, StoreError) as error:
        tail = str(getattr(error, "log_tail", ""))[-LOG_TAIL:]
        retryable = bool(getattr(error, "retryable", False))
        return _result(command, error=str(error), retryable=retryable, result={"log_tail": tail} if tail else {})
    except RequestException as error:
        # Of Docker's client: it went away, or hangs. That says nothing about the job or its checkpoint.
        log.warning("step %s of job %s: %s: %s", command.step, command.job_id[:10], AWAY, error)
        return _result(command, error=AWAY, retryable=True, result={"host_fault": AWAY})
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return _result(command, error=f"this host failed: {reason}", retryable=True)
    except Exception as error:
        log.exception("step %s of job %s failed unexpectedly", command.step, command.job_id[:10])
        return _result(command, error=f"this agent has a fault ({type(error).__name__})", retryable=True)


def _result(
    command: Command,
    *,
    ok: bool = False,
    error: str = "",
    retryable: bool = False,
    result: dict[str, Any] | None = None,
) -> CommandResult:
    return CommandResult(
        job_id=command.job_id,
        fence=command.fence,
        step=command.step,
        ok=ok,
        error=error[:SENTENCE],
        retryable=retryable,
        result=result or {},
    )
