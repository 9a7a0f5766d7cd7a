"""Receipts: what the watcher saw, signed. Newest per lease; ``earned`` and ``seen_at`` never fall.

Where the order pays for saved work alone, ``earned`` advances with the checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from everlease.chain.keys import Key
from everlease.chain.typed_data import Domain, receipt_digest
from everlease.db import Database, Tx, awards, receipts
from everlease.db.models.jobs import AwardRow, JobRow
from everlease.domain import jobspec
from everlease.domain.earning import Service, payable
from everlease.domain.manifest import evidence_root
from everlease.domain.terms import Receipt


@dataclass(frozen=True, slots=True)
class Watcher:
    """The key that signs, and the contract it signs for."""

    key: Key
    domain: Domain

    @property
    def address(self) -> str:
        """The watcher's account, lower case."""
        return self.key.address

    def sign(self, receipt: Receipt) -> str:
        """The receipt's EIP-712 signature."""
        return self.key.sign(receipt_digest(self.domain, receipt))


def next_receipt(
    previous: Receipt | None, award: AwardRow, job: JobRow, *, final: bool, in_full: bool, now: float
) -> Receipt:
    """The receipt after ``previous``: whole seconds to pay, the last heartbeat, the head manifest as evidence.

    Between two checkpoints the seconds may stand still; the heartbeat goes on, so that nobody counts as silent.
    """
    service = Service(award.earned_s, award.saved_s, award.forfeited_s)
    policy = jobspec.from_dict(job.spec).checkpoint
    earned = payable(service, as_served=policy.pays_as_served, in_full=in_full, max_lost_work=policy.max_lost_work_s)
    seen = award.last_beat_at or award.started_at or award.opened_at
    seen_at = int(seen.timestamp()) if seen is not None else int(now)
    return Receipt(
        lease_id=award.lease_id,
        seq=previous.seq + 1 if previous else 1,
        seen_at=max(seen_at, previous.seen_at if previous else 0),
        earned=max(earned, previous.earned if previous else 0),
        final=final,
        checkpoint_root=evidence_root(job.head_manifest),
    )


def sign(
    tx: Tx, watcher: Watcher, award: AwardRow, job: JobRow, *, final: bool, now: float, in_full: bool = False
) -> bool:
    """Sign and keep the next receipt of an award; only a final one may follow its end. False where none was kept.

    ``in_full``: pay to the lease's end, also where the order pays for saved work alone. The award is locked, so that
    of two who sign at once the second sees what the first has kept, and no final receipt gives way to another.
    """
    locked = awards.locked(tx, award.job_id, award.fence)
    if locked is None:
        return False
    award, job = locked
    if award.ended_at is not None and not final:
        return False
    row = receipts.newest(tx, award.lease_id)
    previous = receipts.terms_of(row) if row is not None else None
    if previous is not None and previous.final:
        return False
    receipt = next_receipt(previous, award, job, final=final, in_full=in_full, now=now)
    signed_at = datetime.fromtimestamp(now, UTC)
    return receipts.put(tx, award.job_id, award.node, receipt, watcher.sign(receipt), signed_at)


def sign_all(database: Database, watcher: Watcher, clock: Callable[[], float]) -> int:
    """Sign a receipt for every award with heartbeats that no receipt shows yet; returns how many."""
    signed = 0
    with database.transaction() as tx:
        keys = [(award.job_id, award.fence) for award in awards.unreceipted(tx)]
    for job_id, fence in keys:
        with database.transaction() as tx:
            held = awards.locked(tx, job_id, fence)
            if held is not None:
                award, job = held
                signed += sign(tx, watcher, award, job, final=False, now=clock())
    return signed
