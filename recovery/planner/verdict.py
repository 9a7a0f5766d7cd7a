"""Whether a job is at fault itself: what several providers' hosts say of it, none of whom ends it alone."""

from collections.abc import Set
from dataclasses import dataclass

from everlease.domain.fault import parties
from everlease.domain.job import JobEvent
from everlease.domain.jobspec import OnFailure
from everlease.domain.snapshot import Award, Snapshot
from recovery.planner.draft import Draft
from recovery.planner.history import since_resumed

MOVED = "moved"
"""The outcome of an award under which the program failed as often as it was to be started again."""
UNDUMPABLE = "undumpable"
"""The outcome of an award whose host could not checkpoint a job that insists on that."""
WITNESSES = 2
"""Unrelated parties that must tell the same of a job from the same checkpoint before it counts as its own fault."""
_SAME_END = 4
"""Runs in a row that ended with the same exit code, at ``WITNESSES``, count as that too, whatever they started from."""


def judged(draft: Draft) -> bool:
    """End or park a job that is at fault itself, or was recovered as often as its order allows. True where it was."""
    snapshot, policy = draft.snapshot, draft.policy
    allowed = snapshot.job.spec.max_recoveries
    failure = _failure(snapshot)
    failing, alike = _failing_at_head(snapshot), _ends_alike(snapshot)
    if failure and snapshot.job.spec.on_failure is OnFailure.FAIL:
        draft.give_up(failure)
    elif failure:
        draft.event(JobEvent.PARKED, failure)
    elif alike is not None:
        # Two addresses of one party may have told this: that ends nothing, but must not go on for ever either.
        draft.event(JobEvent.PARKED, alike.reason)
    elif len(failing) >= policy.max_failing_providers:
        draft.event(JobEvent.PARKED, f"it failed at {len(failing)} providers from the same checkpoint")
    elif snapshot.recovered > allowed:
        draft.event(JobEvent.PARKED, f"{snapshot.recovered} providers lost the job, its order allows {allowed}")
    else:
        return False
    return True


def undumpable_everywhere(draft: Draft) -> bool:
    """Whether hosts of unrelated providers, or of many, said that the job can't be checkpointed."""
    told = {a.provider for a in since_resumed(draft.snapshot) if a.undumpable and a.started_at is not None}
    return _agree(draft.snapshot, told) or len(told) >= draft.policy.max_failing_providers


def _failure(snapshot: Snapshot) -> str:
    """How the job failed in the same way at several providers, from the same checkpoint or each time that it ran of
    late: a host may commit anything before the program ends. Empty where it did not.
    """
    seen: dict[tuple[str, str | None], set[str]] = {}
    for award in since_resumed(snapshot):
        how = _how_it_failed(snapshot, award)
        if how:
            providers = seen.setdefault((how, award.restore_manifest), set())
            providers.add(award.provider)
            if _agree(snapshot, providers):
                return f"the job {how} at {len(providers)} providers{_from(award)}{_detail(award)}"
    alike = _ends_alike(snapshot)
    return alike.reason if alike is not None and _agree(snapshot, alike.providers) else ""


@dataclass(frozen=True, slots=True)
class _Alike:
    reason: str
    providers: frozenset[str]


def _ends_alike(snapshot: Snapshot) -> _Alike | None:
    """The exit code with which the job ended in its last runs, for people, and at whose hosts; None where they
    differ."""
    last = [award for award in since_resumed(snapshot) if award.started_at is not None][-_SAME_END:]
    ends = {award.exit_code if award.outcome == MOVED else None for award in last}
    providers = frozenset(award.provider for award in last)
    if len(last) < _SAME_END or len(ends) > 1 or not any(ends) or len(providers) < WITNESSES:
        return None
    code = last[-1].exit_code
    return _Alike(
        f"the job ended with exit code {code} {_SAME_END} times in a row, at {len(providers)} providers", providers
    )


def _agree(snapshot: Snapshot, providers: Set[str]) -> bool:
    """Whether these are several unrelated parties: proven providers, and all others as one. A market in which nobody is
    proven yet takes each for itself, or no job could fail there.
    """
    known = providers if snapshot.young else snapshot.proven
    return len(parties(providers, known)) >= WITNESSES


def _failing_at_head(snapshot: Snapshot) -> set[str]:
    head = snapshot.job.head_manifest
    return {a.provider for a in since_resumed(snapshot) if a.restore_manifest == head and _how_it_failed(snapshot, a)}


def _how_it_failed(snapshot: Snapshot, award: Award) -> str:
    """Empty where it did not. A job that may fall back to files does that instead of failing for want of a dump."""
    if award.outcome == UNDUMPABLE and not snapshot.job.spec.checkpoint.fall_back_to_files:
        return "can't be checkpointed"
    if award.outcome == MOVED and award.exit_code:
        return f"ended with exit code {award.exit_code}"
    return ""


def _from(award: Award) -> str:
    return "" if award.restore_manifest is None else f", from checkpoint {award.restore_seq}"


def _detail(award: Award) -> str:
    return f": {award.undumpable[:300]}" if award.outcome == UNDUMPABLE else ""
