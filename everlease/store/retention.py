"""Which checkpoints of a job to keep. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from everlease.domain.manifest import CID


@dataclass(frozen=True, slots=True)
class CheckpointAge:
    """A committed checkpoint: its manifest, its number in the chain, and when it was committed (unix seconds)."""

    manifest: CID
    seq: int
    committed_at: float


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How many to keep: of the newest, and the newest of each hour and day that has any.

    `keep_last` is at least 2: the head, and the one a failed restore falls back to. Nothing younger than `min_age_s`
    goes.
    """

    keep_last: int = 3
    keep_hourly: int = 6
    keep_daily: int = 2
    min_age_s: float = 0.0

    def __post_init__(self) -> None:
        if self.keep_last < 2 or min(self.keep_hourly, self.keep_daily) < 0:
            raise ValueError("keep_last is at least 2, keep_hourly and keep_daily are not negative")


def retained(checkpoints: Collection[CheckpointAge], policy: RetentionPolicy, now: float) -> frozenset[CID]:
    """The manifests to keep. Equal input gives equal output; order does not matter."""
    newest_first = sorted(checkpoints, key=lambda checkpoint: checkpoint.seq, reverse=True)
    keep = set(newest_first[: policy.keep_last])
    keep.update(item for item in newest_first if now - item.committed_at < policy.min_age_s)
    for period, count in ((3600.0, policy.keep_hourly), (86400.0, policy.keep_daily)):
        buckets: dict[int, CheckpointAge] = {}
        for item in newest_first:
            buckets.setdefault(int(item.committed_at // period), item)
        keep.update(buckets[bucket] for bucket in sorted(buckets, reverse=True)[:count])
    return frozenset(item.manifest for item in keep)
