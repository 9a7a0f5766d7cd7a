"""What there is to see of one job: leases, checkpoints, cost, outputs."""

from typing import Annotated

from fastapi import APIRouter, Query

from everlease.db import checkpoints, jobs, queries
from everlease.wire.http import (
    CheckpointList,
    CostOut,
    LeaseList,
    OutputsOut,
)
from marketplace.dependencies import CallerDep, JobIdDep, PartsDep
from marketplace.pages import CursorQuery, Limit, decode_cursor, encode_cursor
from marketplace.problems import ProblemError
from marketplace.routers.jobs import own_job
from marketplace.services.keys import DEDUP_GENERATION, InvalidSealingKey, KeyUnavailable, parse_sealing_key
from marketplace.services.presentation import checkpoint_out, cost_out, lease_out
from marketplace.services.wishes import gone

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


@router.get("/leases")
def leases(job_id: JobIdDep, parts: PartsDep, caller: CallerDep) -> LeaseList:
    """The job's leases as the chain has them, by epoch."""
    with parts.db.transaction() as tx:
        own_job(tx, job_id, caller)
        return LeaseList(items=[lease_out(row) for row in queries.leases_of(tx, job_id)])


@router.get("/checkpoints")
def checkpoint_page(
    job_id: JobIdDep,
    parts: PartsDep,
    caller: CallerDep,
    cursor: CursorQuery = None,
    limit: Limit = 50,
    kept: Annotated[bool, Query(description="Only those that are there still")] = False,
) -> CheckpointList:
    """The job's committed checkpoints, newest first."""
    before = decode_cursor(cursor, int)[0] if cursor is not None else None
    with parts.db.transaction() as tx:
        job = own_job(tx, job_id, caller)
        rows = checkpoints.page(tx, job_id, before, limit + 1, kept=kept)
        authors = checkpoints.authors(tx, job_id)
    shown = rows[:limit]
    more = encode_cursor(shown[-1].seq) if len(rows) > limit else None
    return CheckpointList(items=[checkpoint_out(row, job, authors.get(row.fence)) for row in shown], next_cursor=more)


@router.get("/cost")
def cost(job_id: JobIdDep, parts: PartsDep, caller: CallerDep) -> CostOut:
    """Paid, reserved, owed by receipts, refundable and projected, in base units."""
    with parts.db.transaction() as tx:
        own_job(tx, job_id, caller)
        return cost_out(queries.money_of(tx, job_id))


@router.get("/outputs")
def outputs(
    job_id: JobIdDep,
    parts: PartsDep,
    caller: CallerDep,
    public_key: Annotated[str, Query(max_length=64, description="X25519 public key, base64 or base64url")],
    seq: Annotated[int | None, Query(ge=1, lt=2**31, description="Of which checkpoint; else the head")] = None,
) -> OutputsOut:
    """How to read a checkpoint: its manifest, a store token, and its keys sealed to ``public_key``."""
    try:
        reader = parse_sealing_key(public_key)
    except InvalidSealingKey as error:
        raise ProblemError(422, "invalid-public-key", str(error)) from error
    with parts.db.transaction() as tx:
        row = own_job(tx, job_id, caller)
        if seq is not None:
            head = checkpoints.numbered(tx, job_id, seq)
        else:
            head = checkpoints.by_manifest(tx, row.head_manifest) if row.head_manifest else None
        if head is None and seq is None:
            raise ProblemError(409, "no-checkpoint", f"job {row.name} has no checkpoint yet: wait or ask for one")
        if head is None or head.condemned_at is not None:
            raise ProblemError(409, "checkpoint-gone", gone(row.name, seq if head is None else head.seq))
        wanted = {DEDUP_GENERATION, head.generation, *(int(number) for number in head.generations)}
        try:
            sealed = parts.keys.sealed(tx, job_id, wanted, reader)
        except KeyUnavailable as error:
            raise ProblemError(409, "key-unavailable", str(error)) from error
        jobs.record(tx, job_id, "key.released", {"tenant": caller, "generations": sorted(wanted)})
    token, _ = parts.store.token(caller, f"outputs:{job_id}", write=False, job=job_id)
    return OutputsOut(
        manifest=head.manifest,
        seq=head.seq,
        mode=head.mode,
        final=head.final,
        dedup_secret=sealed.pop(DEDUP_GENERATION),
        keys=sealed,
        store_url=parts.store.url,
        store_token=token,
        chain_id=parts.deployment.chain_id,
        escrow=parts.deployment.escrow,
    )
