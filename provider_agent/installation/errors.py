"""Why a host can't be set up or put back; each message is one sentence that says what to do."""


class InstallationError(Exception):
    """Base of this room."""


class HostRefused(InstallationError):
    """This machine lacks what an installation takes, or holds something that it would overwrite."""


class AgentAway(InstallationError):
    """No agent answers at its control socket."""


class CommandFailed(InstallationError):
    """A host's own tool failed. ``detail`` is its last line."""

    def __init__(self, command: str, detail: str) -> None:
        super().__init__(f"'{command}' failed: {detail}")
        self.command, self.detail = command, detail
