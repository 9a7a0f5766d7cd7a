"""What nodes tell about their containers, kept on the award until the planner has dealt with it."""

from typing import Any

from everlease.db import Tx, awards, jobs
from everlease.db.outbox import OutboxEvent

QUIET_S = 20.0
"""A node that says the same again sooner than this is not written down again: the history stays short."""
_TOLD = {
    "disk_full": "host.disk_full",
    "checkpoint_failed": "checkpoint.failed",
    "oom_killed": "job.oom_killed",
    "thawed": "job.thawed",
    "trial_dump": "checkpoint.impossible",
}
"""What the tenant reads of it; an exit shows in the move that follows."""


def keep(tx: Tx, event: OutboxEvent, now: float) -> None:
    """Write an event of the topic ``NOTICE`` down; a repeat or one under an older fence changes nothing that counts."""
    payload = event.payload
    job_id, fence, kind = str(payload["job_id"]), int(payload["fence"]), str(payload["kind"])
    detail = str(payload.get("detail", ""))[:2000]
    data: dict[str, Any] = payload.get("data") or {}
    if kind in _TOLD and not data.get("ok"):
        told = {"node": str(payload.get("node", "")), "fence": fence, "detail": detail}
        jobs.record_news(tx, job_id, _TOLD[kind], told, QUIET_S)
    if kind == "exited":
        if data.get("outputs_error"):
            awards.note(tx, job_id, fence, {}, {"final_commit_failed": str(data["outputs_error"])[:2000]})
        container = str(data.get("container") or event.id)[:100]
        fault = str(data.get("host_fault") or "")[:500]
        if awards.note_exit(tx, job_id, fence, container, int(data["code"]), now, fault) and fault:
            told = {"node": str(payload.get("node", "")), "fence": fence, "detail": fault}
            jobs.record(tx, job_id, "host.fault", told)
    elif kind == "trial_dump" and not data.get("ok") and awards.is_current(tx, job_id, fence):
        awards.note(tx, job_id, fence, {}, {"undumpable": detail or "the trial dump failed"})
