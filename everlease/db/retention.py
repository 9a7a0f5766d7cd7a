"""Which checkpoints are kept, and so which blocks the store must keep.

Recovery condemns checkpoints under their job's lock, under which a job is also resumed from one: what is resumed from
stays, and what was condemned is never resumed from. The marketplace reads what is left before it collects garbage.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import exists, func, select, update

from everlease.db import jobs
from everlease.db.engine import Database, Tx
from everlease.db.locks import try_lock
from everlease.db.models.jobs import AwardRow, CheckpointRow, JobRow, ReceiptRow
from everlease.db.models.mirror import EscrowRow, LeaseRow
from everlease.domain.retention import Bounds, Point, Tenure, kept

_LOCK = "everlease.gc"
_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Terms:
    """How long checkpoints are kept once their job has ended, or its order's deadline has passed: of a job that paid a
    provider, and of any other.
    """

    paid: timedelta
    unpaid: timedelta


def jobs_to_tidy(tx: Tx, bounds: Bounds, now: datetime) -> Sequence[str]:
    """Jobs that may have a checkpoint too many: those with the most of them first."""
    many = func.count() > bounds.newest
    spoilt = func.bool_or(CheckpointRow.damaged != "")
    ended = JobRow.ended_at.is_not(None) | JobRow.kept_until.is_not(None)
    over = func.bool_or(ended | (EscrowRow.deadline < int(now.timestamp())))
    return tx.scalars(
        select(CheckpointRow.job_id)
        .join(JobRow, JobRow.id == CheckpointRow.job_id)
        .outerjoin(EscrowRow, EscrowRow.job_id == CheckpointRow.job_id)
        .where(CheckpointRow.condemned_at.is_(None))
        .group_by(CheckpointRow.job_id)
        .having(many | spoilt | over)
        .order_by(func.count().desc(), CheckpointRow.job_id)
    ).all()


def condemn(tx: Tx, job_id: str, bounds: Bounds, terms: Terms, now: datetime) -> int:
    """Condemn those of a job's checkpoints that are not to be kept (``domain.retention``), all once its time is over;
    returns how many. Damaged ones go, one that the tenant asks to resume from stays.
    """
    job = jobs.lock(tx, job_id)
    job.kept_until = _kept_until(tx, job, terms, now)
    rows = tx.execute(
        select(
            CheckpointRow.seq,
            CheckpointRow.manifest,
            AwardRow.provider,
            CheckpointRow.fence,
            CheckpointRow.logical_bytes,
            CheckpointRow.superseded,
            CheckpointRow.final,
        )
        .join(AwardRow, (AwardRow.job_id == CheckpointRow.job_id) & (AwardRow.fence == CheckpointRow.fence))
        .where(
            CheckpointRow.job_id == job_id,
            CheckpointRow.condemned_at.is_(None),
            (CheckpointRow.damaged == "") | (CheckpointRow.manifest == job.head_manifest),
        )
    )
    points = [Point(*row) for row in rows]
    wanted = set(kept(points, _tenures(tx, job_id), job.head_manifest, bounds))
    if job.wish == "resume":
        wanted.add(int(job.wish_detail.get("seq", job.head_seq)))
    elif job.kept_until is not None and job.kept_until < now:
        wanted.clear()
        _retire(tx, job)
    gone = (
        update(CheckpointRow)
        .where(CheckpointRow.job_id == job_id, CheckpointRow.condemned_at.is_(None), CheckpointRow.seq.not_in(wanted))
        .values(condemned_at=now)
        .returning(CheckpointRow.seq)
        .execution_options(synchronize_session=False)
    )
    return len(tx.execute(gone).all())


def _retire(tx: Tx, job: JobRow) -> None:
    """Nothing of it is kept any more: a job that goes on all the same, with a new deadline, begins at the beginning."""
    if job.ended_at is None and job.head_manifest is not None:
        jobs.record(tx, job.id, "checkpoint.expired", {"seq": job.head_seq})
        job.head_seq, job.head_manifest = 0, None


def _tenures(tx: Tx, job_id: str) -> list[Tenure]:
    """The awards of a job that started, and where on the head's line each did."""
    start = (
        select(CheckpointRow.job_id, CheckpointRow.manifest, CheckpointRow.seq)
        .where(CheckpointRow.job_id == job_id, CheckpointRow.superseded.is_(False), CheckpointRow.damaged == "")
        .subquery()
    )
    rows = tx.execute(
        select(
            AwardRow.fence,
            AwardRow.provider,
            AwardRow.restore_manifest,
            func.coalesce(start.c.seq, 0),
            AwardRow.earned_s,
        )
        .outerjoin(start, start.c.manifest == AwardRow.restore_manifest)
        .where(AwardRow.job_id == job_id, AwardRow.started_at.is_not(None))
        .order_by(AwardRow.fence)
    )
    return [Tenure(*row) for row in rows]


def _kept_until(tx: Tx, job: JobRow, terms: Terms, now: datetime) -> datetime | None:
    """When a job's checkpoints go; None while it may go on."""
    since = job.ended_at
    if since is None:
        deadline = tx.scalar(select(EscrowRow.deadline).where(EscrowRow.job_id == job.id))
        since = datetime.fromtimestamp(deadline, UTC) if deadline is not None else None
        if since is None or since > now:
            return None
    return since + (terms.paid if _paid(tx, job.id) else terms.unpaid)


def _paid(tx: Tx, job_id: str) -> bool:
    """Whether a provider was paid for this job, or has a receipt for what it will be paid."""
    settled = exists().where(LeaseRow.job_id == job_id, LeaseRow.paid > 0)
    owed = exists().where(
        ReceiptRow.job_id == job_id,
        ReceiptRow.earned > 0,
        AwardRow.lease_id == ReceiptRow.lease_id,
        AwardRow.rate_per_hour > 0,
    )
    return bool(tx.scalar(select(settled | owed)))


@contextmanager
def hold_turn(database: Database) -> Iterator[bool]:
    """Whether this process alone collects, until the block ends: a session's lock, which ends with the process.

    Raises DatabaseUnavailable.
    """
    with try_lock(database, _LOCK) as held:
        yield held is not None


def checkpoint_blocks(tx: Tx) -> Iterator[str]:
    """Manifests and blocks of every checkpoint that is not condemned, one by one and some more than once."""
    kept = CheckpointRow.condemned_at.is_(None)
    for column in (CheckpointRow.manifest, func.jsonb_array_elements_text(CheckpointRow.block_cids)):
        yield from tx.scalars(select(column).where(kept).execution_options(yield_per=_AT_ONCE))


def images(tx: Tx, ended_after: datetime) -> list[str]:
    """Image lists of jobs whose escrow was funded, and that go on, ended after ``ended_after``, or can be resumed."""
    resumable = exists().where(CheckpointRow.job_id == JobRow.id, CheckpointRow.condemned_at.is_(None))
    wanted = (
        select(JobRow.image_manifest)
        .join(EscrowRow, EscrowRow.job_id == JobRow.id)
        .where(
            JobRow.image_manifest.is_not(None),
            JobRow.ended_at.is_(None) | (JobRow.ended_at >= ended_after) | resumable,
        )
        .distinct()
        .order_by(JobRow.image_manifest)
    )
    return [manifest for manifest in tx.scalars(wanted) if manifest is not None]
