"""What the demo promises, checked against its report. Each broken promise is one clause."""

from typing import Any

from everlease.demo.measure import Incident
from everlease.demo.params import LONGEST_LOSS_S


def broken(report: dict[str, Any], incidents: list[Incident]) -> list[str]:
    """The promises that were not kept; empty when all were."""
    causes = {incident.cause for incident in incidents}
    checks = [
        (report["job"]["state"] == "SUCCEEDED", f"the job ended as {report['job']['state']}"),
        (report["bit_exact"], "the loss file differs from the reference"),
        (report["conserved"], "the balances do not add up"),
        (report["zombie"]["accepted"] == 0, f"{report['zombie']['accepted']} acts of a stale host were accepted"),
    ]
    for row in report["recoveries"]:
        lost = row["lost_work_s"]
        checks.append(
            (lost is not None and lost <= LONGEST_LOSS_S, f"{lost} s of work were lost on {row['from_node']}")
        )
    if "killed" in causes:
        hit = [row for row in report["slashes"] if not row["answered"]]
        checks.append((len(hit) == 1, f"{len(hit)} leases were slashed for silence instead of one"))
    if "cut off" in causes:
        checks.append((report["zombie"]["frozen"], "the host that was cut off had not frozen itself"))
        refused = report["zombie"]["refused"]
        for kind in ("heartbeat", "checkpoint", "receipt"):
            checks.append((refused.get(kind, 0) > 0, f"no late {kind} of the zombie was seen and refused"))
        answered = _lease_of(report, "cut off", incidents)
        settled = answered is not None and answered["state"] in {"CLEARED", "FAILED"} and answered["answered"]
        checks.append((settled, "the lease of the host that was cut off was not answered"))
    if "drained" in causes:
        moved = next(row for row in report["recoveries"] if row["cause"] == "drained")
        checks.append((moved["steps_redone"] == 0, f"the drain cost {moved['steps_redone']} steps"))
        lease = _lease_of(report, "drained", incidents)
        checks.append(
            (lease is not None and lease["state"] == "CLOSED" and lease["slashed"] == 0, "the drained host lost money")
        )
    return [clause for kept, clause in checks if not kept]


def _lease_of(report: dict[str, Any], cause: str, incidents: list[Incident]) -> dict[str, Any] | None:
    """The lease of the host that an incident hit, with whether it was answered."""
    node = next(row["from_node"] for row in report["recoveries"] if row["cause"] == cause)
    lease = next((row for row in report["leases"] if row["node"] == node), None)
    if lease is None:
        return None
    slash = next((row for row in report["slashes"] if row["node"] == node), None)
    return {**lease, "answered": lease["state"] == "CLEARED" or (slash is not None and slash["answered"])}
