"""Examples in the OpenAPI document."""

from fastapi.openapi.models import Example

from everlease.domain import jobspec
from everlease.wire.spec import SpecModel

_SPEC = {
    "name": "train-mlp",
    "image": "everlease/trainer:local",
    "image_digest": "sha256:" + "5e" * 32,
    "command": ["python", "train.py", "--steps", "2000"],
    "resources": {"gpus": 0, "cpu_millis": 1000, "memory_bytes": 2 << 30, "disk_bytes": 2 << 30, "pids": 1024},
    "checkpoint": {"mode": "auto", "max_lost_work_s": 300, "min_interval_s": 10, "fall_back_to_files": False},
    "max_recoveries": 10,
    "on_failure": "fail",
    "env": {},
    "workdir": "",
    "user": "",
}
JOB_REQUEST: dict[str, Example] = {
    "a training job": {
        "summary": "One CPU, 2 GiB, at most 0.50 an hour",
        "value": {
            "spec": _SPEC,
            "order": {
                "tenant": "0x70997970c51812dc3a010c7d01b50e0d17dc79c8",
                "watcher": "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc",
                "job_spec": jobspec.spec_hash(SpecModel.model_validate(_SPEC).to_domain()),
                "max_rate_per_hour": 500_000,
                "deposit": 2_000_000,
                "min_collateral": 1_000_000,
                "max_silence": 6,
                "max_epochs": 100,
                "epoch_fee": 0,
                "deadline": 1_900_000_000,
                "nonce": 1,
            },
            "order_signature": "0x" + "11" * 65,
            "image_manifest": "bafkrei" + "a" * 52,
            "image_bytes": 123_456_789,
            "funding": "permit",
        },
    }
}
