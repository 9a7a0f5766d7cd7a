"""The demo's timeline: printed as it happens, kept for the report."""

import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

COLOURS = {"step": "bold cyan", "incident": "bold red", "good": "green", "money": "yellow", "job": "default"}


@dataclass
class Timeline:
    """``entries``: {at, kind, text}. ``quiet`` keeps without printing."""

    quiet: bool = False
    began: float = field(default_factory=time.time)
    entries: list[dict[str, Any]] = field(default_factory=list)
    console: Console = field(default_factory=lambda: Console(highlight=False))

    def note(self, kind: str, text: str, at: float | None = None) -> float:
        """Add one line (kinds: COLOURS); returns its time."""
        moment = time.time() if at is None else at
        self.entries.append({"at": moment, "kind": kind, "text": text})
        if not self.quiet:
            colour = COLOURS.get(kind, "default")
            line = Text.assemble((f"{moment - self.began:7.1f} s", "dim"), "  ", (text, colour))
            self.console.print(line, soft_wrap=True)
        return moment


_TEXTS = {
    "job.funded": "deposit is in the escrow",
    "auction.opened": "auction {plan}",
    "job.awarded": "awarded to {node} at {rate}",
    "job.opened": "lease {epoch} is open on chain",
    "job.restore_began": "restoring from checkpoint {seq}",
    "job.started": "running on {node}",
    "job.lost": "host {node} is LOST",
    "job.migrate_requested": "migration begins",
    "job.exited_ok": "the job ended with exit code 0",
    "checkpoint.committed": "checkpoint {seq} committed, {new_mb} MB new, {pause_s:.2f} s frozen",
    "key.released": "job key released to {holder}",
    "node.draining": "{node} is draining",
    "node.restarting": "{node} restarts its agent",
    "job.nobody_bid": "nobody bid: {reason}",
    "job.gave_up": "gave up: {reason}",
    "job.parked": "parked: {reason}",
    "job.held_back": "held back: {reason}",
    "job.host_stopped": "host {node} stopped in order",
    "host.fault": "{node}: {detail}",
    "job.voided": "award void: {reason}",
    "node.fenced": "{node} reports that it had frozen itself",
}


def describe(kind: str, data: dict[str, Any], names: dict[str, str]) -> str | None:
    """A job event in words, with nodes by name; None for one that isn't told."""
    template = _TEXTS.get(kind)
    if template is None:
        return None
    values = {"node": "?", "rate": "", "seq": "?", "epoch": "?", "plan": "", "pause_s": 0.0, "reason": "", **data}
    values["node"] = names.get(str(values["node"]).lower(), str(values["node"])[:10])
    values["holder"] = "the tenant" if "tenant" in data else values["node"]
    values["new_mb"] = round(float(data.get("new_bytes", 0)) / 1e6, 1)
    if "rate_per_hour" in data:
        values["rate"] = f"${data['rate_per_hour'] / 1e6:.3f}/h"
    elif "from_node" in data:
        values["rate"] = "the rate it won at"
    return template.format(**values)
