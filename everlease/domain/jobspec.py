"""What a job is, canonically: the preimage of ``Order.job_spec``, which every node checks for itself."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class CheckpointMode(StrEnum):
    """``auto``: process where the host can, ``files`` only if the order allows it; or insist on one of the two."""

    AUTO = "auto"
    PROCESS = "process"
    FILES = "files"
    NONE = "none"


class OnFailure(StrEnum):
    """What becomes of a job that is shown to be at fault itself: it has FAILED, or it is PARKED and can go on."""

    FAIL = "fail"
    PARK = "park"


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of the container: whole GPUs, CPUs in thousandths, bytes of memory and disk, processes."""

    gpus: int
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    pids: int = 1024


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """Seconds. ``max_lost_work_s`` bounds interval + pause + upload. ``pay_unsaved``: whether seconds count whose work
    was in no checkpoint yet when it went with its host.
    """

    mode: CheckpointMode
    max_lost_work_s: int
    min_interval_s: int
    fall_back_to_files: bool = False
    pay_unsaved: bool = False

    @property
    def pays_as_served(self) -> bool:
        """Whether every second served is paid: where the order says so, or has no checkpoints to go by."""
        return self.pay_unsaved or self.mode is CheckpointMode.NONE

    @property
    def strict(self) -> bool:
        """Whether nothing but process checkpoints will do."""
        if self.mode is CheckpointMode.AUTO:
            return not self.fall_back_to_files
        return self.mode is CheckpointMode.PROCESS


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Everything a node needs to run the job. ``image_digest`` is the image's config digest; ``user`` is USER or
    USER:GROUP by name or number, "" for the image's own, which is known only where the image is.
    """

    name: str
    image: str
    image_digest: str
    command: tuple[str, ...]
    resources: Resources
    checkpoint: CheckpointPolicy
    max_recoveries: int
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""
    on_failure: OnFailure = OnFailure.FAIL


def largest_checkpoint(resources: Resources) -> int:
    """Bytes of the largest checkpoint that a host restores: the limits' and 1 GiB for the dump's own files."""
    return resources.memory_bytes + 2 * resources.disk_bytes + (1 << 30)


def canonical(spec: JobSpec) -> bytes:
    """The spec as canonical JSON: sorted keys, no white space, UTF-8, enum values as strings (after RFC 8785)."""
    return json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def spec_hash(spec: JobSpec) -> str:
    """0x-hex sha256 of the canonical spec: the Order's ``job_spec`` field."""
    return "0x" + hashlib.sha256(canonical(spec)).hexdigest()


def from_dict(data: dict[str, object]) -> JobSpec:
    """The inverse of ``dataclasses.asdict``; raises KeyError, TypeError or ValueError on anything malformed."""
    if not isinstance(data, dict):
        raise TypeError("a job spec is an object")
    fields = dict(data)
    resources = fields.pop("resources")
    checkpoint = fields.pop("checkpoint")
    if not isinstance(resources, dict) or not isinstance(checkpoint, dict):
        raise TypeError("resources and checkpoint are objects")
    command, on_failure = fields.pop("command"), fields.pop("on_failure", OnFailure.FAIL)
    if not isinstance(command, list | tuple) or not all(isinstance(word, str) for word in command):
        raise TypeError("command is a list of strings")
    return JobSpec(
        **fields,  # type: ignore[arg-type]
        command=tuple(command),
        on_failure=OnFailure(str(on_failure)),
        resources=Resources(**resources),
        checkpoint=CheckpointPolicy(**{**checkpoint, "mode": CheckpointMode(checkpoint["mode"])}),
    )
