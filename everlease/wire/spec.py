"""A job spec on the wire: bounded field by field, and refused where two of its fields contradict each other."""

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from everlease.domain import jobspec
from everlease.domain.jobspec import CheckpointMode, OnFailure
from everlease.wire.base import Message

MiB = 1 << 20
MAX_COMMAND_BYTES = 64 * 1024
MAX_ENV_BYTES = 128 * 1024

Word = Annotated[str, StringConstraints(max_length=MAX_COMMAND_BYTES, pattern=r"^[^\x00]*$")]
EnvName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ResourcesModel(Message):
    """Whole GPUs, CPUs in thousandths, bytes, processes."""

    gpus: int = Field(ge=0, le=64)
    cpu_millis: int = Field(ge=10, le=1_024_000)
    memory_bytes: int = Field(ge=16 * MiB, le=1 << 46)
    disk_bytes: int = Field(ge=16 * MiB, le=1 << 50)
    pids: int = Field(default=1024, ge=1, le=1_000_000)


class CheckpointPolicyModel(Message):
    """Seconds; ``max_lost_work_s`` bounds interval + pause + upload."""

    mode: CheckpointMode
    max_lost_work_s: int = Field(ge=1, le=7 * 86_400)
    min_interval_s: int = Field(ge=0, le=7 * 86_400)
    fall_back_to_files: bool = False
    pay_unsaved: bool = False

    @model_validator(mode="after")
    def _agree(self) -> "CheckpointPolicyModel":
        if self.min_interval_s >= self.max_lost_work_s:
            raise ValueError(
                f"min_interval ({self.min_interval_s} s) must be shorter than max_lost_work ({self.max_lost_work_s} s)"
            )
        if self.fall_back_to_files and self.mode in (CheckpointMode.PROCESS, CheckpointMode.NONE):
            raise ValueError(f"fall_back_to_files contradicts the checkpoint mode {self.mode.value!r}: use 'auto'")
        return self

    def to_domain(self) -> jobspec.CheckpointPolicy:
        return jobspec.CheckpointPolicy(**self.model_dump())


class SpecModel(Message):
    """What a job is; ``to_domain`` gives the preimage of the order's ``job_spec``."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    image: str = Field(min_length=1, max_length=300, pattern=r"^[^\s\x00-\x1f]+$")
    image_digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    command: list[Word] = Field(max_length=1024)
    resources: ResourcesModel
    checkpoint: CheckpointPolicyModel
    max_recoveries: int = Field(ge=0, le=1000)
    on_failure: OnFailure = OnFailure.FAIL
    env: dict[EnvName, Word] = Field(default_factory=dict, max_length=512)
    workdir: str = Field(default="", max_length=1024, pattern=r"^(/[^\x00]*)?$")
    user: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9_.:-]*$")

    @field_validator("command")
    @classmethod
    def _command_fits(cls, command: list[str]) -> list[str]:
        if sum(len(word.encode()) for word in command) > MAX_COMMAND_BYTES:
            raise ValueError(f"the command is longer than {MAX_COMMAND_BYTES} bytes: put it into the image")
        return command

    @field_validator("env")
    @classmethod
    def _env_fits(cls, env: dict[str, str]) -> dict[str, str]:
        if sum(len(name) + len(value.encode()) for name, value in env.items()) > MAX_ENV_BYTES:
            raise ValueError(f"the environment is larger than {MAX_ENV_BYTES} bytes")
        reserved = [name for name in env if name.startswith("EVERLEASE_")]
        if reserved:
            raise ValueError(f"{reserved[0]} is reserved: names that begin with EVERLEASE_ are set by the agent")
        return env

    def to_domain(self) -> jobspec.JobSpec:
        return jobspec.from_dict(self.model_dump())
