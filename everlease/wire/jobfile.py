"""job.yaml: what a tenant writes, with units and amounts as people give them, turned into a spec and an order."""

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from everlease.domain.jobspec import CheckpointMode, OnFailure
from everlease.domain.money import InvalidAmount, to_units
from everlease.wire.base import Message
from everlease.wire.spec import CheckpointPolicyModel, EnvName, ResourcesModel, SpecModel, Word

_SIZES = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_TIMES = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_NUMBER = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$")
MAX_FILE_BYTES = 256 * 1024


class InvalidJobFile(Exception):
    """A job.yaml that can't be used. ``field`` is the dotted name of the first bad field, or empty."""

    retryable = False

    def __init__(self, path: str, field: str, reason: str) -> None:
        super().__init__(f"{path}: {field}: {reason}" if field else f"{path}: {reason}")
        self.path, self.field, self.reason = path, field, reason


def _scaled(value: object, units: dict[str, int], kind: str, example: str) -> int:
    found = _NUMBER.match(str(value).lower())
    unit = found[2] if found else None
    if found is None or isinstance(value, bool) or unit not in units:
        raise ValueError(f"{value!r} is not a {kind}: write it like {example}")
    number = float(found[1]) * units[unit]
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number of {'bytes' if kind == 'size' else 'seconds'}")
    return int(number)


def parse_size(value: object) -> int:
    """Bytes of ``2GiB``, ``500MB``, ``1024``; raises ValueError."""
    text = str(value).lower()
    return _scaled(text.removesuffix("b") if len(text) > 1 else text, _SIZES, "size", "2GiB")


def parse_duration(value: object) -> int:
    """Seconds of ``300s``, ``5m``, ``1h``, ``90``; raises ValueError."""
    return _scaled(value, _TIMES, "duration", "300s")


def _amount(value: object) -> int:
    try:
        return to_units(str(value))
    except InvalidAmount as error:
        raise ValueError(str(error)) from error


def _millis(value: object) -> int:
    try:
        number = float(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is not a number of CPUs: write it like 1 or 0.5") from None
    return round(number * 1000)


Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[int, BeforeValidator(parse_duration)]
Amount = Annotated[int, BeforeValidator(_amount), Field(lt=2**128)]


class ResourcesFile(Message):
    """``cpus`` becomes thousandths; memory and disk bytes."""

    gpus: int = Field(default=0, ge=0, le=64)
    cpus: Annotated[int, BeforeValidator(_millis), Field(ge=10, le=1_024_000)] = 1000
    memory: Size = 2 << 30
    disk: Size = 2 << 30
    pids: int = Field(default=1024, ge=1, le=1_000_000)


class CheckpointFile(Message):
    mode: CheckpointMode = CheckpointMode.AUTO
    max_lost_work: Duration = 300
    min_interval: Duration = 10
    fall_back_to_files: bool = False
    pay_unsaved: bool = False


class RecoveryFile(Message):
    """``max_recoveries``: how many providers may lose the job before it is parked."""

    max_recoveries: int = Field(default=10, ge=0, le=1000)
    on_failure: OnFailure = OnFailure.FAIL


class JobFile(Message):
    """A whole job.yaml, amounts in base units; ``lifetime``: how long leases can be opened for the order."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    image: str = Field(min_length=1, max_length=300)
    command: list[Word] = Field(default_factory=list, max_length=1024)
    resources: ResourcesFile = ResourcesFile()
    max_price_per_hour: Amount
    deposit: Amount
    checkpoint: CheckpointFile = CheckpointFile()
    recovery: RecoveryFile = RecoveryFile()
    env: dict[EnvName, Word] = Field(default_factory=dict)
    workdir: str = ""
    user: str = ""
    lifetime: Duration = 7 * 86_400
    min_collateral: Amount | None = None

    @model_validator(mode="after")
    def _payable(self) -> "JobFile":
        if self.max_price_per_hour == 0:
            raise ValueError("max_price_per_hour is zero: nobody would bid")
        if self.deposit == 0:
            raise ValueError("deposit is zero: a lease can't be opened without escrow")
        return self

    def spec(self, image_digest: str, image_user: str) -> SpecModel:
        """The spec for the image with this config digest and USER, which counts where the job names no user.

        Raises InvalidJobFile where fields contradict each other.
        """
        policy, resources = self.checkpoint, self.resources
        try:
            return SpecModel(
                name=self.name,
                image=self.image,
                image_digest=image_digest,
                command=self.command,
                resources=ResourcesModel(
                    gpus=resources.gpus,
                    cpu_millis=resources.cpus,
                    memory_bytes=resources.memory,
                    disk_bytes=resources.disk,
                    pids=resources.pids,
                ),
                checkpoint=CheckpointPolicyModel(
                    mode=policy.mode,
                    max_lost_work_s=policy.max_lost_work,
                    min_interval_s=policy.min_interval,
                    fall_back_to_files=policy.fall_back_to_files,
                    pay_unsaved=policy.pay_unsaved,
                ),
                max_recoveries=self.recovery.max_recoveries,
                on_failure=self.recovery.on_failure,
                env=self.env,
                workdir=self.workdir,
                user=self.user or image_user,
            )
        except ValidationError as error:
            raise _refused("job.yaml", error) from error


def load_job_file(path: Path) -> JobFile:
    """Read and check a job.yaml; raises InvalidJobFile with the field's name and what is wrong with it."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidJobFile(str(path), "", f"it is larger than {MAX_FILE_BYTES} bytes")
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidJobFile(str(path), "", "there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidJobFile(str(path), "", f"it can't be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise InvalidJobFile(str(path), "", f"it is not YAML{where}") from error
    if not isinstance(content, dict):
        raise InvalidJobFile(str(path), "", "it is not a mapping of fields: begin with 'name: my-job'")
    try:
        job = JobFile.model_validate(content)
        job.spec("sha256:" + "0" * 64, "0")
    except ValidationError as error:
        raise _refused(str(path), error) from error
    except InvalidJobFile as error:
        raise InvalidJobFile(str(path), error.field, error.reason) from error
    return job


_SPEC_NAMES = {"cpu_millis": "cpus", "memory_bytes": "memory", "disk_bytes": "disk"}


def _refused(path: str, error: ValidationError) -> InvalidJobFile:
    first = error.errors()[0]
    field = ".".join(_SPEC_NAMES.get(str(part), str(part)) for part in first["loc"])
    reason = {"missing": "it is required", "extra_forbidden": "there is no such field"}.get(
        str(first["type"]), str(first["msg"]).removeprefix("Value error, ")
    )
    return InvalidJobFile(path, field, reason)
