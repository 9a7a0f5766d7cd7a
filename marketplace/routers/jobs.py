"""Jobs: create, list, show, and what tenants ask of them."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse

from everlease.db import Tx, jobs, queries
from everlease.db.models.jobs import JobRow
from everlease.db.outbox import emit
from everlease.domain.job import JobState
from everlease.domain.manifest import CID
from everlease.wire.http import CallOut, JobList, JobOut, JobRequest, TopUpRequest, WishRequest
from everlease.wire.terms import OrderModel
from marketplace.dependencies import CallerDep, IdempotencyKey, JobIdDep, PartsDep
from marketplace.examples import JOB_REQUEST
from marketplace.pages import CursorQuery, Limit, decode_cursor, encode_cursor
from marketplace.parts import Parts
from marketplace.problems import ProblemError
from marketplace.services.idempotency import once
from marketplace.services.images import check_image, is_kept
from marketplace.services.orders import CheckedOrder
from marketplace.services.presentation import job_out
from marketplace.services.wishes import Begin, beginning, record_wish

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


@router.post("", status_code=201, response_model=JobOut, responses={200: {"model": JobOut}})
def create(
    request: Annotated[JobRequest, Body(openapi_examples=JOB_REQUEST)],
    parts: PartsDep,
    caller: CallerDep,
    key: IdempotencyKey = None,
) -> JSONResponse:
    """Announce a job: the order is checked and kept; it is auctioned once its deposit is in the escrow.

    Announcing the same order again answers 200 with the job as it is.
    """
    checked = parts.orders.check(request, caller, parts.clock())
    with parts.db.transaction() as tx:
        known = tx.get(JobRow, checked.job_id) is not None
    if not known and request.image_manifest is not None:
        check_image(parts.store, CID(request.image_manifest), request.image_bytes)

    def announce(tx: Tx) -> tuple[int, JobOut]:
        known = tx.get(JobRow, checked.job_id)
        if known is not None:
            return 200, job_out(tx, known)
        most = parts.settings.max_pending_jobs
        if len(queries.jobs_of(tx, caller, JobState.PENDING, None, most)) >= most:
            raise ProblemError(
                429, "too-many-pending-jobs", f"{most} of your jobs wait for their deposit: fund them first"
            )
        return 201, job_out(tx, _add_job(tx, checked, request))

    with parts.db.transaction() as tx:
        kept = once(tx, caller, key, "create " + request.model_dump_json(), announce)
    return JSONResponse(kept.body, kept.status, headers={"Location": f"/v1/jobs/{checked.job_id}"})


@router.get("")
def index(
    parts: PartsDep,
    caller: CallerDep,
    state: JobState | None = None,
    cursor: CursorQuery = None,
    limit: Limit = 50,
) -> JobList:
    """The caller's jobs, newest first."""
    before = None
    if cursor is not None:
        micros, job_id = decode_cursor(cursor, int, str)
        before = (_EPOCH + timedelta(microseconds=micros), job_id)
    with parts.db.transaction() as tx:
        rows = queries.jobs_of(tx, caller, state, before, limit + 1)
        shown = rows[:limit]
        last = shown[-1] if len(rows) > limit else None
        more = encode_cursor((last.created_at - _EPOCH) // _MICROSECOND, last.id) if last else None
        return JobList(items=[job_out(tx, row) for row in shown], next_cursor=more)


@router.get("/{job_id}")
def show(job_id: JobIdDep, parts: PartsDep, caller: CallerDep) -> JobOut:
    """One job of the caller's."""
    with parts.db.transaction() as tx:
        return job_out(tx, own_job(tx, job_id, caller))


@router.post("/{job_id}/top-ups")
def top_up(
    job_id: JobIdDep, request: TopUpRequest, parts: PartsDep, caller: CallerDep, key: IdempotencyKey = None
) -> CallOut:
    """What to send from one's own wallet to add escrow; nothing is spent by this call itself."""

    def note(tx: Tx) -> tuple[int, CallOut]:
        row = own_job(tx, job_id, caller)
        jobs.record(tx, row.id, "job.top_up_asked", {"amount": request.amount})
        deployment = parts.deployment
        return 200, CallOut(
            to=deployment.escrow,
            function="topUp(bytes32,uint128,(uint256,uint256,uint8,bytes32,bytes32))",
            args=[job_id, request.amount],
            asset=deployment.asset,
            allowance=request.amount,
        )

    with parts.db.transaction() as tx:
        return CallOut.model_validate(once(tx, caller, key, f"top-up {job_id} {request.amount}", note).body)


@router.post("/{job_id}/{wish}", status_code=202)
def wish(
    job_id: JobIdDep,
    wish: Literal["checkpoint", "migrate", "hibernate", "resume", "cancel"],
    parts: PartsDep,
    caller: CallerDep,
    request: Annotated[WishRequest | None, Body()] = None,
    key: IdempotencyKey = None,
) -> JobOut:
    """Ask for a checkpoint, a move to another host, a pause without cost, its end, or the job's end.

    ``resume`` lets a job go on that hibernates, ended or ran out of money: from ``checkpoint_seq``, else from its head.
    0 is its beginning.
    Answers 409 where the job's state doesn't allow it. Asking again while it is under way changes nothing.
    """
    asked = request or WishRequest()
    if asked.checkpoint_seq is not None and wish != "resume":
        raise ProblemError(422, "no-checkpoint-here", f"checkpoint_seq is for resume: {wish} has none")
    begin = _begin(parts, job_id, caller, asked.checkpoint_seq) if wish == "resume" else None

    def note(tx: Tx) -> tuple[int, JobOut]:
        return 202, job_out(tx, record_wish(tx, job_id, caller, wish, asked.reason, begin))

    with parts.db.transaction() as tx:
        words = f"{wish} {job_id} {asked.reason}" + ("" if asked.checkpoint_seq is None else f" {asked.checkpoint_seq}")
        return JobOut.model_validate(once(tx, caller, key, words, note).body)


def _begin(parts: Parts, job_id: str, caller: str, seq: int | None) -> Begin:
    """What the store has of the image and of the checkpoint to resume from; their blocks stay there meanwhile. What is
    wrong is told later, where the request is no repeat. Raises UnknownJob, StoreUnavailable.
    """
    with parts.db.transaction() as tx:
        row = own_job(tx, job_id, caller)
        image = row.image_manifest
        try:
            found = beginning(tx, row, seq)
        except ProblemError:
            return Begin(seq)
        manifest = None if found is None else found.manifest
        wanted = set[str]() if found is None else {found.manifest, *found.block_cids}
    missing = len(parts.store.missing(wanted, f"resume:{job_id}")) if wanted else 0
    return Begin(seq, manifest, missing, image is not None and not is_kept(parts.store, CID(image)))


def own_job(tx: Tx, job_id: str, caller: str) -> JobRow:
    """The job if it is the caller's; raises UnknownJob otherwise, so that ids of others can't be probed."""
    row = jobs.get(tx, job_id)
    if row.tenant != caller:
        raise jobs.UnknownJob(job_id)
    return row


def _add_job(tx: Tx, checked: CheckedOrder, request: JobRequest) -> JobRow:
    row = JobRow(
        id=checked.job_id,
        name=checked.spec.name,
        tenant=checked.order.tenant,
        watcher=checked.order.watcher,
        order=OrderModel.from_domain(checked.order).model_dump(),
        order_signature=request.order_signature,
        spec=asdict(checked.spec),
        image_digest=checked.spec.image_digest,
        image_manifest=request.image_manifest,
        image_bytes=request.image_bytes,
        state=JobState.PENDING.value,
    )
    tx.add(row)
    tx.flush()
    tx.refresh(row)
    jobs.record(tx, row.id, "job.created", {"name": row.name, "deposit": checked.order.deposit})
    emit(tx, "job.created", {"job_id": row.id})
    return row
