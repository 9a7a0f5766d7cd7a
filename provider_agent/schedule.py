"""When to checkpoint next and what a loss of the host would cost right now. Pure; seconds throughout."""

from dataclasses import dataclass

from everlease.domain.interval import CheckpointCost, checkpoint_interval, loss_bound
from everlease.domain.jobspec import CheckpointPolicy
from provider_agent.records import JobRecord

FIRST_RETRY_S, LONGEST_RETRY_S = 5.0, 120.0


@dataclass(frozen=True)
class Plan:
    """``due`` (unix) is when the next checkpoint starts; ``bound`` the most work that a loss before it can cost."""

    due: float
    interval: float
    bound: float


def next_checkpoint(record: JobRecord, policy: CheckpointPolicy, mtbf_s: float, trial_after_s: float) -> Plan:
    """The next regular checkpoint of a running job; an untried program's first is its trial, soon after the start."""
    cost = CheckpointCost(pause=record.pause_s, upload=record.upload_s)
    interval = checkpoint_interval(cost, mtbf_s, policy.max_lost_work_s, policy.min_interval_s)
    bound = loss_bound(cost, interval)
    since = max(record.taken_at, record.started_at)
    if not record.tried:
        return Plan(record.started_at + trial_after_s, trial_after_s, bound)
    return Plan(since + interval, interval, bound)


def loss_now(record: JobRecord, plan: Plan | None, now: float) -> float:
    """Seconds of work at stake: the plan's bound while it holds, all work since the last checkpoint once it is late."""
    since = now - (record.taken_at or record.started_at or now)
    return max(since, plan.bound if plan is not None and record.tried else 0.0)


def retry_after(failures: int) -> float:
    """How long to wait after this many failed checkpoints in a row (from 1)."""
    return float(min(FIRST_RETRY_S * 2 ** (failures - 1), LONGEST_RETRY_S))
