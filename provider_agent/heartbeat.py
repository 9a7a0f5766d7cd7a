"""Heartbeats and what follows from their answers: until when containers may run by the last one acknowledged."""

from everlease.wire.node import Challenge, JobBeat
from provider_agent.clock import Clock
from provider_agent.link import Link

DEFAULT_EVERY_S = 1.0


class Heartbeats:
    """Counts on CLOCK_BOOTTIME from when a heartbeat was sent; the marketplace from when it came, which is later."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fence_after = 0.0
        self._deadline = 0.0
        self._sent: dict[int, tuple[float, dict[str, int]]] = {}
        self.every = DEFAULT_EVERY_S

    def begin(self, challenge: Challenge) -> None:
        """A new session with its own terms; answers to older heartbeats can't come any more."""
        self._fence_after, self.every = challenge.fence_after, challenge.heartbeat_every
        self._sent.clear()

    def deadline(self) -> float:
        """CLOCK_BOOTTIME seconds until which containers may run; 0 before the first acknowledgement."""
        return self._deadline

    async def send(self, link: Link, lines: list[JobBeat]) -> None:
        """Send one. Raises LinkDown."""
        body = {"type": "heartbeat", "jobs": [line.model_dump() for line in lines]}
        fences = {line.job_id: line.fence for line in lines}

        def numbered(number: int) -> None:
            # The time is taken before the frame leaves: an answer can only come later.
            self._sent[number] = (self._clock.boottime(), fences)

        await link.send(body, numbered)

    def acknowledged(self, number: int) -> dict[str, int]:
        """The jobs (id → fence) of an acknowledged heartbeat; moves the deadline. Empty for an unknown number."""
        sent_at, lines = self._sent.pop(number, (0.0, {}))
        for older in [seq for seq in self._sent if seq < number]:
            del self._sent[older]
        if sent_at:
            self._deadline = max(self._deadline, sent_at + self._fence_after)
        return lines
