"""What can go wrong between the agent and a host's containers. Every message is one sentence that says what to do."""


class RuntimeFault(Exception):
    """Base of this package's errors; `retryable` says whether the same call may succeed later on this host."""

    retryable = False


class DockerMissing(RuntimeFault):
    """This host has no Docker engine."""

    def __init__(self, binary: str) -> None:
        super().__init__(
            f"Docker is not installed ({binary} not found): run 'apt-get install -y docker.io', then start the agent"
        )
        self.binary = binary


class DaemonUnavailable(RuntimeFault):
    """A Docker daemon does not answer on its socket."""

    retryable = True

    def __init__(self, socket: str, detail: str) -> None:
        super().__init__(f"the Docker daemon at {socket} does not answer ({detail}): start it, or name another socket")
        self.socket, self.detail = socket, detail


class DaemonUnsupported(RuntimeFault):
    """A Docker daemon speaks no API that we know, or runs containers in a way that no job can have."""

    def __init__(self, socket: str, detail: str) -> None:
        super().__init__(f"the Docker daemon at {socket} can't be used: {detail}")
        self.socket, self.detail = socket, detail


class RuntimeNotRegistered(RuntimeFault):
    """An existing daemon lacks the runtime `everlease`, or has it at another path."""

    def __init__(self, wrapper: str, found: str | None) -> None:
        line = f'"runtimes": {{"everlease": {{"path": "{wrapper}"}}}}'
        why = "is not registered" if found is None else f"is registered at {found}"
        super().__init__(
            f"the runtime 'everlease' {why} with the Docker daemon: put {line} into /etc/docker/daemon.json "
            "and run 'systemctl reload docker' (or 'kill -HUP $(pidof dockerd)')"
        )
        self.wrapper, self.found = wrapper, found


class ContainerFault(RuntimeFault):
    """Docker refused an operation on a container."""

    def __init__(self, operation: str, subject: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(f"can't {operation} {subject}: {detail}")
        self.operation, self.subject, self.detail, self.retryable = operation, subject, detail, retryable


class ImageMissing(RuntimeFault):
    """The image is not on this host and can't be pulled."""

    def __init__(self, image: str, detail: str) -> None:
        super().__init__(f"the image {image} is not on this host ({detail}): load it or check its name")
        self.image, self.detail = image, detail


class SubnetTaken(RuntimeFault):
    """Another network of this host overlaps with the job's subnet; another host can take the job."""

    def __init__(self, subnet: str, detail: str) -> None:
        super().__init__(
            f"the job's subnet {subnet} is already in use on this host ({detail}): run the job on another host"
        )
        self.subnet, self.detail = subnet, detail


class FirewallFault(RuntimeFault):
    """An iptables rule could not be set; no job is started without its rules."""

    def __init__(self, command: str, detail: str) -> None:
        super().__init__(f"'{command}' failed ({detail}): jobs can't be isolated, so none is started")
        self.command, self.detail = command, detail


class DumpFailed(RuntimeFault):
    """A checkpoint was not taken; the job goes on. `log_tail` holds the last lines of CRIU's log."""

    def __init__(self, container: str, reason: str, log_tail: str, *, retryable: bool, permanent: bool = False) -> None:
        super().__init__(f"the checkpoint of {container[:12]} failed: {reason}")
        self.container, self.reason, self.log_tail = container, reason, log_tail
        self.retryable, self.permanent = retryable, permanent


class Parked(DumpFailed):
    """The container was fenced in the middle of a dump, which waits in its frozen tasks and will be thrown away."""


class RestoreFailed(RuntimeFault):
    """A checkpoint could not be brought back to life on this host."""

    def __init__(self, job_id: str, reason: str, log_tail: str) -> None:
        super().__init__(f"the restore of {job_id} failed: {reason}")
        self.job_id, self.reason, self.log_tail = job_id, reason, log_tail


class CheckpointRefused(RuntimeFault):
    """A checkpoint on disk is incomplete or asks for rights which the job's spec does not give."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the checkpoint in {path} is refused: {reason}")
        self.path, self.reason = path, reason
