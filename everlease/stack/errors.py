"""What can go wrong when a local stack is started; each message is one sentence that says what to do."""

from pathlib import Path


class StackError(Exception):
    """Root of this package's errors."""

    retryable = False


class MissingTool(StackError):
    """A program that the set-up would have installed isn't there."""

    def __init__(self, tool: str, remedy: str = "run 'make setup'") -> None:
        super().__init__(f"{tool} is missing: {remedy}")
        self.tool = tool


class NotReady(StackError):
    """A process ended or did not answer in time; its log says why."""

    retryable = True

    def __init__(self, name: str, why: str, log: Path) -> None:
        super().__init__(f"{name} {why}; see {log}")
        self.name, self.log = name, log


class AlreadyUp(StackError):
    """A stack runs from this folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"a stack is already up in {folder}: use it, or run 'everlease down' first")


class NotUp(StackError):
    """No stack runs from this folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"no stack is up in {folder}: run 'everlease up' first")


class NeedsRoot(StackError):
    """Network namespaces and Docker daemons take root."""

    def __init__(self) -> None:
        super().__init__(
            "development nodes need root (network namespaces, a Docker daemon each): run as root, or without --nodes"
        )
