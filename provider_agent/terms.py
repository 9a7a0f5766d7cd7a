"""What this node agreed to: a command may ask for nothing that differs from a bid it signed."""

from collections.abc import Mapping
from typing import Any

from everlease.chain.typed_data import lease_id
from everlease.domain import compat
from everlease.domain.jobspec import CheckpointMode, JobSpec, from_dict, spec_hash
from everlease.wire.commands import Prepare, Start
from everlease.wire.terms import LeaseParamsModel
from provider_agent.errors import SpecRefused, StepFailed
from provider_agent.host import Host
from provider_agent.journal import Journal
from provider_agent.records import JobRecord, LeaseRecord


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


def agree_on_lease(journal: Journal, command: Prepare | Start) -> None:
    """Journal the lease of an award, which must be one that our own bid makes: its id binds bid, order and rate.

    From now on the node answers for it, whatever becomes of the job. Raises SpecRefused.
    """
    name, rate = command.lease_id, command.rate_per_hour
    if name is None or rate is None:
        return
    for record in journal.bids(command.job_id):
        params = record.params(rate)
        if lease_id(params) == name and rate >= record.bid.min_rate_per_hour:
            if journal.lease(name) is None:
                model = LeaseParamsModel.from_domain(params)
                until = record.bid.deadline
                journal.put_lease(LeaseRecord(lease_id=name, params=model, fence=command.fence, open_until=until))
            return
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
