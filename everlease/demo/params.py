"""How big a demonstration: the issue's, and a small one for the end-to-end test."""

from dataclasses import dataclass

from everlease.wire.jobfile import JobFile


@dataclass(frozen=True, slots=True)
class DemoParams:
    """``causes``: what is done to the job's host, in this order. ``between_steps``: steps that a
    host does in peace after its first checkpoint."""

    nodes: int
    causes: tuple[str, ...]
    steps: int
    samples: int
    hidden: int
    pause: float
    memory: str
    between_steps: int
    answer_window_s: int

    def job(self) -> JobFile:
        """The job as a tenant would write it."""
        return JobFile.model_validate({
            "name": "train-mlp",
            "image": "everlease/trainer:local",
            "command": self.command(),
            "resources": {"cpus": 1, "memory": self.memory, "disk": "2GiB"},
            "max_price_per_hour": "0.50",
            "deposit": "2.00",
            "checkpoint": {"mode": "process", "max_lost_work": f"{LONGEST_LOSS_S}s", "min_interval": "8s"},
            "recovery": {"max_recoveries": 10},
            "env": ENVIRONMENT,
        })  # fmt: skip

    def command(self, pause: float | None = None) -> list[str]:
        """The training loop's command line; ``pause`` is how long it sleeps after a step, which changes no number."""
        slept = self.pause if pause is None else pause
        options = {"steps": self.steps, "samples": self.samples, "hidden": self.hidden, "pause": slept}
        return ["python", "train.py", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


LONGEST_LOSS_S = 30
"""The tenant's bound on lost work, seconds."""
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}

FULL = DemoParams(
    nodes=4, causes=("killed", "cut off", "drained"), steps=1600, samples=240_000, hidden=1024, pause=0.05,
    memory="2GiB", between_steps=100, answer_window_s=60,
)  # fmt: skip
SMALL = DemoParams(
    nodes=2, causes=("killed",), steps=400, samples=16_000, hidden=256, pause=0.12,
    memory="512MiB", between_steps=40, answer_window_s=10,
)  # fmt: skip
