"""Exit codes of the command line, and the way from any known error to one of them and one sentence."""

import errno
from enum import IntEnum

import httpx
from eth_abi.exceptions import EncodingError
from pydantic import ValidationError

from everlease.chain.errors import (
    CallReverted,
    ChainError,
    InsufficientFunds,
    KeyRefused,
    NonceHeld,
    NotMined,
    Overtaken,
    RpcUnavailable,
    TooDear,
)
from everlease.demo.errors import DemoStuck, ReferenceFailed
from everlease.domain.money import InvalidAmount
from everlease.stack.errors import AlreadyUp, NotUp, StackError
from everlease.store.errors import StoreError, StoreUnavailable
from everlease.wire.jobfile import InvalidJobFile
from provider_agent.installation.errors import AgentAway, InstallationError
from provider_agent.runtime.errors import DaemonUnavailable, RuntimeFault


class ExitCode(IntEnum):
    """Stable; README.md explains them."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    INVALID = 3
    NOT_FOUND = 4
    REFUSED = 5
    UNAVAILABLE = 6
    MONEY = 7
    JOB_FAILED = 8
    PROMISE_BROKEN = 9
    INTERRUPTED = 130


class CliError(Exception):
    """What a command tells its user: one sentence and an exit code. ``status``: of the HTTP answer that it tells of."""

    def __init__(self, code: ExitCode, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.code, self.status = code, status


_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.ENOLCK, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What is wrong with the machine and not with what was asked for."""
_OURS = ("everlease", "provider_agent", "marketplace", "indexer", "recovery")
_MONEY = {"deposit-above-balance", "deposit-above-allowance", "deposit-too-small", "empty-order"}


def from_problem(response: httpx.Response) -> CliError:
    """The error in a problem document (RFC 9457) of the marketplace or the explorer."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    detail = str(problem.get("detail") or problem.get("title") or f"the server answered {response.status_code}")
    if problem.get("errors"):
        first = problem["errors"][0]
        field = ".".join(str(part) for part in first.get("loc", []) if part != "body")
        detail = f"{field}: {first.get('msg', detail)}"
    slug = str(problem.get("type", "")).rpartition("/")[2].rpartition(":")[2]
    status = response.status_code
    if slug in _MONEY:
        return CliError(ExitCode.MONEY, detail, status)
    by_status = {401: ExitCode.REFUSED, 403: ExitCode.REFUSED, 404: ExitCode.NOT_FOUND, 409: ExitCode.REFUSED}
    if status < 400 or status in (408, 425, 429) or status >= 500:
        return CliError(ExitCode.UNAVAILABLE, detail, status)
    return CliError(by_status.get(status, ExitCode.INVALID), detail, status)


def explain(error: Exception) -> CliError | None:
    """The exit code and sentence for an error of one of our packages; None for what nobody expected."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, InvalidJobFile | InvalidAmount | ValidationError):
        return CliError(ExitCode.INVALID, str(error).splitlines()[0])
    if isinstance(error, KeyRefused):
        return CliError(ExitCode.REFUSED, str(error))
    if isinstance(error, InsufficientFunds):
        return CliError(
            ExitCode.MONEY, "the account can't pay for the transaction's gas: send it some of the chain's coin"
        )
    if isinstance(error, CallReverted):
        return CliError(ExitCode.REFUSED, str(error))
    if isinstance(error, RpcUnavailable | NonceHeld | NotMined | Overtaken | TooDear | StoreUnavailable):
        return CliError(ExitCode.UNAVAILABLE, str(error))
    if isinstance(error, ChainError | StoreError):
        return CliError(ExitCode.REFUSED, str(error))
    if isinstance(error, NotUp):
        return CliError(ExitCode.NOT_FOUND, str(error))
    if isinstance(error, AlreadyUp):
        return CliError(ExitCode.REFUSED, str(error))
    if isinstance(error, StackError):
        return CliError(ExitCode.UNAVAILABLE, str(error))
    if isinstance(error, DemoStuck | ReferenceFailed):
        return CliError(ExitCode.PROMISE_BROKEN, str(error))
    if isinstance(error, AgentAway | DaemonUnavailable):
        return CliError(ExitCode.UNAVAILABLE, str(error))
    if isinstance(error, InstallationError | RuntimeFault):
        return CliError(ExitCode.REFUSED, str(error))
    if isinstance(error, httpx.HTTPError):
        return CliError(ExitCode.UNAVAILABLE, f"a server could not be reached: {error}")
    if isinstance(error, EncodingError):
        return CliError(ExitCode.INVALID, f"a value is none that the contract takes: {error}")
    if isinstance(error, OSError) and error.errno is not None:
        code = ExitCode.UNAVAILABLE if error.errno in _MACHINE else ExitCode.INVALID
        where = f"{error.filename}: " if error.filename is not None else ""
        return CliError(code, f"{where}{error.strerror or error}")
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(_OURS):
        return CliError(
            ExitCode.NOT_FOUND,
            f"this takes the package {error.name}: install 'everlease[server]' (to run a market) or 'everlease[agent]'",
        )
    return None
