"""What this node agreed to: a command may ask for nothing that differs from a bid it signed."""

from collections.abc import Mapping
from typing import Any

from everlease.chain.typed_data import lease_id
from everlease.domain import compat
from everlease.domain.jobspec import CheckpointMode, JobSpec, from_dict, spec_hash
from everlease.domain.terms import LeaseParams
from everlease.wire.commands import Start
from provider_agent.errors import SpecRefused, StepFailed
from provider_agent.host import Host
from provider_agent.journal import Journal
from provider_agent.records import JobRecord


def agreed_spec(journal: Journal, job_id: str, raw: dict[str, object]) -> JobSpec:
    """The spec of a job that we bid on; its hash is the one in the signed order. Raises SpecRefused."""
    bids = journal.bids(job_id)
    if not bids:
        raise SpecRefused("this node never bid on the job")
    spec = parse_spec(raw)
    if spec_hash(spec) != bids[0].order.job_spec:
        raise SpecRefused("the job's spec is not the one of the order that this node bid on")
    return spec


def parse_spec(raw: dict[str, object]) -> JobSpec:
    """A spec from the wire. Raises SpecRefused."""
    try:
        return from_dict(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise SpecRefused(f"the job's spec is malformed ({type(error).__name__})") from error


def agreed_lease(journal: Journal, start: Start) -> LeaseParams:
    """The lease, which must be one that our own bid makes: its id binds bid, order and rate. Raises SpecRefused."""
    for record in journal.bids(start.job_id):
        params = record.params(start.rate_per_hour)
        if lease_id(params) == start.lease_id and start.rate_per_hour >= record.bid.min_rate_per_hour:
            return params
    raise SpecRefused("the lease is not one that this node's bids allow")


def check_restorable(host: Host, requirements: Mapping[str, Any] | None) -> None:
    """Refuse a process checkpoint that can't live here before a byte of it is fetched. Raises StepFailed: ``unfit``."""
    reason = compat.why_not(requirements, host.facts)
    if reason is not None:
        raise StepFailed(reason, data={"unfit": reason})


def checkpoint_mode(start: Start, spec: JobSpec) -> str:
    """How this award is checkpointed: as the marketplace chose, unless the order wants no checkpoints."""
    return "none" if spec.checkpoint.mode is CheckpointMode.NONE else start.mode


def promised(host: Host, but: str = "") -> list[JobSpec]:
    """The specs of all jobs that this host holds, one left out."""
    return [parse_spec(record.prepare.spec) for record in host.journal.jobs() if record.job_id != but]


def free_gpus(host: Host, job_id: str, wanted: int) -> tuple[str, ...]:
    """Ids of GPUs that no other job holds. Raises StepFailed when there are too few."""
    if wanted == 0:
        return ()
    taken = {gpu for record in _others(host, job_id) for gpu in record.gpus}
    free = [str(gpu["uuid"]) for gpu in host.facts.get("gpus", []) if str(gpu["uuid"]) not in taken]
    if len(free) < wanted:
        raise StepFailed(f"the job wants {wanted} GPUs, {len(free)} are free here", retryable=True)
    return tuple(free[:wanted])


def _others(host: Host, job_id: str) -> list[JobRecord]:
    return [record for record in host.journal.jobs() if record.job_id != job_id]
