"""What a killed agent left behind goes at its next start: of jobs that the journal does not know, and of no other."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from everlease.wire.commands import Prepare
from provider_agent.host import Folders, Host
from provider_agent.journal import Journal
from provider_agent.orphans import sweep_host
from provider_agent.records import JobRecord
from provider_agent.runtime.errors import ContainerFault

KNOWN, STUCK, CONTAINER, NETWORK = (f"0x{digit * 64}" for digit in "abcd")


class Engine:
    """The jobs that have a container or a network; one of them can't be removed."""

    def __init__(self) -> None:
        self.left = {KNOWN, STUCK, CONTAINER, NETWORK}

    def jobs(self) -> set[str]:
        return set(self.left)

    def remove_job(self, job_id: str) -> None:
        if job_id == STUCK:
            raise ContainerFault("remove the network of", job_id, "it has active endpoints")
        self.left.remove(job_id)


def test_containers_networks_and_folders_of_unknown_jobs_go(tmp_path: Path) -> None:
    journal, folders, engine = Journal(tmp_path / "journal.db"), Folders(tmp_path), Engine()
    prepare = Prepare(job_id=KNOWN, fence=1, step="prepare/1", spec={}, store_token="t")
    journal.put_job(JobRecord(job_id=KNOWN, fence=1, phase="prepared", prepare=prepare))
    for job_id in (KNOWN, CONTAINER):
        folders.job(job_id).mkdir(parents=True)

    sweep_host(cast(Host, SimpleNamespace(journal=journal, engine=engine, folders=folders)))

    assert engine.left == {KNOWN, STUCK}
    assert [folder.name for folder in (tmp_path / "jobs").iterdir()] == [KNOWN]
