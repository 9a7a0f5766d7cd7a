"""What can go wrong in the demo itself."""


class DemoStuck(Exception):
    """Something that should have happened did not; the logs say why."""

    retryable = False

    def __init__(self, awaited: str, waited: float, state: str) -> None:
        super().__init__(
            f"waited {waited:.0f} s for {awaited}; the job is {state}: see the logs of worker, marketplace, agent"
        )


class ReferenceFailed(Exception):
    """The training loop itself failed; its output says why."""

    retryable = False
