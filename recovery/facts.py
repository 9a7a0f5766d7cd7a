"""What nodes tell about their containers, kept on the award until the planner has dealt with it."""

from typing import Any

from everlease.db import Tx, awards
from everlease.db.outbox import OutboxEvent

TOPIC = "node.notice"


def keep(tx: Tx, event: OutboxEvent, now: float) -> None:
    """Write a ``node.notice`` event down; a repeat or one under an older fence changes nothing that counts."""
    payload = event.payload
    job_id, fence, kind = str(payload["job_id"]), int(payload["fence"]), str(payload["kind"])
    detail = str(payload.get("detail", ""))[:2000]
    data: dict[str, Any] = payload.get("data") or {}
    if kind == "exited":
        if data.get("outputs_error"):
            awards.note(tx, job_id, fence, {}, {"final_commit_failed": str(data["outputs_error"])[:2000]})
        container = str(data.get("container") or event.id)[:100]
        awards.note_exit(tx, job_id, fence, container, int(data["code"]), now)
    elif kind == "trial_dump" and not data.get("ok"):
        awards.note(tx, job_id, fence, {}, {"undumpable": detail or "the trial dump failed"})
