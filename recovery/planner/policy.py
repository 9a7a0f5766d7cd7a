"""What the planner may tune: seconds and counts. The deployment's own terms (``min_runtime_s``, ``bond``) are facts."""

from dataclasses import dataclass, field

from everlease.domain.liveness import LivenessPolicy
from everlease.domain.reserve import Posted


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds unless a name says otherwise; ``bond`` and ``min_epoch_fee`` in base units.

    ``min_epoch_fee``: no lease is opened for an order that pays less for each: opening costs the watcher gas.

    ``reserve_rise_s`` and, in a recovery, ``recovery_rise_s``: how long the reserve takes to rise to the order's
    maximum after the auction's window; ``posted``: where it starts if too few leases say what a job costs.
    ``open_timeout_s``: how long an ``open`` may take once it may be sent; bids are good that much longer.
    ``idle_after_s``: how long a host may keep a job from running that nobody asked it to hold; ``storing_after_s``:
    where it says that outputs, or a checkpoint that holds the job, are on their way to the store.
    ``fault_wait_max_s``: the longest that a host which failed the job again and again is kept from it.
    ``unmet_wait_s``: how long a head that no connected host could restore is waited for, at least; ``untaken_wait_s``:
    one that some could, and none takes.
    ``max_failing_providers``: a job that fails at so many from one checkpoint, in whatever ways, is parked.
    ``max_restore_tries``: how often a provider may have a checkpoint and not get it going; then the job waits for it no
    more where others gave it up, and restores that it called worth another try count as failed.
    ``max_host_faults``: per lease; ``max_stops_a_week``: announced stops per node. An announced stop ends its lease, so
    there is one per lease at most.
    """

    min_runtime_s: int
    bond: int
    min_epoch_fee: int = 0
    liveness: LivenessPolicy = field(default_factory=LivenessPolicy)
    auction_window_s: float = 1.0
    recovery_window_s: float = 0.3
    migration_window_s: float = 1.0
    reserve_rise_s: float = 60
    recovery_rise_s: float = 5
    posted: Posted = field(default_factory=lambda: Posted(cpu=100_000, gib=20_000, gpu=1_000_000))
    patience_s: float = 2.0
    open_timeout_s: float = 300
    prepare_timeout_s: float = 900
    start_timeout_s: float = 900
    checkpoint_timeout_s: float = 900
    stop_timeout_s: float = 60
    stop_grace_s: float = 10
    capacity_wait_s: float = 15
    capacity_wait_max_s: float = 300
    capacity_wake_s: float = 2
    fault_wait_max_s: float = 10_800
    unmet_wait_s: float = 600
    untaken_wait_s: float = 3600
    pending_open_s: float = 20
    reorg_grace_s: float = 30
    final_timeout_s: float = 900
    idle_after_s: float = 300
    storing_after_s: float = 10_800
    drain_retry_s: float = 20
    exhaust_margin_s: int = 30
    max_failing_providers: int = 3
    max_restarts: int = 2
    max_host_faults: int = 3
    max_stops_a_week: int = 7
    max_restore_tries: int = 6
    max_attempts: int = 8

    @property
    def margin_s(self) -> int:
        """Seconds of money or time that must be left to go on: less than what ``open`` asks for, or jobs would flap."""
        return min(self.exhaust_margin_s, self.min_runtime_s // 2)

    def fault_wait_s(self, faults: int) -> float:
        """How long a host that failed a job so often is not asked again: it doubles each time, up to a bound."""
        return min(self.capacity_wait_s * 2.0 ** min(faults - 1, 16), self.fault_wait_max_s)
