"""What nodes tell about their containers, kept on the award until the planner has dealt with it."""

from typing import Any

from everlease.db import Tx, awards, jobs
from everlease.db.outbox import OutboxEvent

TOPIC = "node.notice"


def keep(tx: Tx, event: OutboxEvent, now: float) -> None:
    """Write a ``node.notice`` event down; a repeat or one under an older fence changes nothing that counts."""
    payload = event.payload
    job_id, fence, kind = str(payload["job_id"]), int(payload["fence"]), str(payload["kind"])
    detail = str(payload.get("detail", ""))[:2000]
    data: dict[str, Any] = payload.get("data") or {}
    if kind == "exited":
        code = data.get("exit_code", data.get("code"))
        awards.note_exit(tx, job_id, fence, event.id, int(code) if isinstance(code, int) else 1, now)
    elif kind == "trial_dump" and not data.get("ok", not detail):
        awards.note(tx, job_id, fence, {}, {"undumpable": detail or "the trial dump failed"})
    elif kind == "checkpoint_failed" and data.get("final"):
        awards.note(tx, job_id, fence, {}, {"final_commit_failed": detail or "the node gave no reason"})
    jobs.record(tx, job_id, f"node.{kind}", {"fence": fence, "detail": detail, **_small(data)})


def _small(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in list(data.items())[:32] if isinstance(value, int | float | str | bool)}
