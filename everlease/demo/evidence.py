"""What was recorded about the demo's job, loaded in one go."""

from dataclasses import dataclass
from typing import Any

from everlease.db import Database, evidence

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows as dictionaries, times in unix seconds."""

    job: Record
    awards: list[Record]
    auctions: list[Record]
    checkpoints: list[Record]
    history: list[Record]
    output: list[Record]
    refusals: list[Record]
    leases: list[Record]
    slashes: list[Record]

    def award(self, fence: int) -> Record | None:
        """The award under this fence."""
        return next((award for award in self.awards if award["fence"] == fence), None)

    def event(self, kind: str, **wanted: object) -> Record | None:
        """The first event of this kind with these values in its data."""
        for item in self.history:
            if item["kind"] == kind and all(item["data"].get(key) == value for key, value in wanted.items()):
                return item
        return None


def load(database: Database, job_id: str) -> Evidence:
    """Read everything in one transaction."""
    with database.transaction() as tx:
        return Evidence(
            job=evidence.job(tx, job_id),
            awards=evidence.awards(tx, job_id),
            auctions=evidence.auctions(tx, job_id),
            checkpoints=evidence.checkpoints(tx, job_id),
            history=evidence.history(tx, job_id),
            output=evidence.output(tx, job_id),
            refusals=evidence.refusals(tx, job_id),
            leases=evidence.leases(tx, job_id),
            slashes=evidence.slashes(tx, job_id),
        )
