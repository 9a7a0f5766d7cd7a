"""What can go wrong in the supervisor. `sentence` goes to the gateway, so it holds no secret and no path."""

from typing import Any


class AgentError(Exception):
    """Base of the supervisor's errors; `retryable` says whether the same may work later on this host."""

    retryable = False


class ConfigurationRefused(AgentError):
    """The agent can't start as it is configured; the message says what to change."""


class StepFailed(AgentError):
    """A command could not be carried out. `data` goes into the result (`damaged`: the CID of a block, an exit code)."""

    def __init__(self, sentence: str, *, retryable: bool = False, data: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.sentence, self.retryable, self.data = sentence, retryable, data or {}


class SpecRefused(StepFailed):
    """The spec or the terms of a command differ from what this node bid on."""


class CheckpointFailed(AgentError):
    """A checkpoint was not committed; the job goes on. `permanent`: this program can't be checkpointed so at all.

    `fenced`: the gateway says that the job belongs to another host by now.
    """

    def __init__(
        self,
        sentence: str,
        *,
        retryable: bool = True,
        permanent: bool = False,
        fenced: bool = False,
        full: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.sentence, self.retryable = sentence, retryable
        self.permanent, self.fenced, self.full = permanent, fenced, full


class JobGone(AgentError):
    """The job was dropped while something was under way for it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was dropped")
        self.job_id = job_id


class LinkDown(AgentError):
    """The session with the gateway ended before the answer came."""

    retryable = True


class HandshakeRefused(AgentError):
    """The gateway did not admit the node, or is not the gateway of the configured deployment."""

    retryable = True
