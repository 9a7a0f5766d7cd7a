"""What Docker still holds of ours when a host is taken back, and which of it anybody needs."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from provider_agent import trial
from provider_agent.installation.errors import HostRefused
from provider_agent.journal import Journal
from provider_agent.records import JobRecord
from provider_agent.runtime.container import FAILURES, ContainerEngine
from provider_agent.runtime.daemon import connect
from provider_agent.runtime.errors import RuntimeFault


def engine_of(data_dir: Path, socket: Path, *, force: bool) -> ContainerEngine | None:
    """What sees the containers of jobs; None where Docker does not answer and ``force`` goes on. Raises HostRefused."""
    try:
        return ContainerEngine(connect(socket), data_dir / "runtime")
    except RuntimeFault as error:
        if force:
            return None
        raise HostRefused(
            f"nobody can tell whether jobs are on this host ({error}): start Docker ('systemctl start docker'), or say "
            "--force to go on without"
        ) from error


def remove_jobs(engine: ContainerEngine, data_dir: Path, say: Callable[[str], None], *, force: bool) -> None:
    """Remove containers and networks that nobody needs any more; with ``force`` all. The agent has stopped by now.

    Raises HostRefused while a job is here that the agent did not leave in order, before anything is removed.
    """
    try:
        here = {container.job_id for container in engine.list()}
        needed = set() if force else here & _needed(data_dir / "journal.db", here)
        if needed:
            raise HostRefused(
                f"jobs that the agent did not leave in order are still on this host ({len(needed)}): start it again "
                "('systemctl enable --now everlease-agent') and have them moved ('everlease provider drain'), or say "
                "--force to remove them, which loses them their collateral"
            )
        for job in sorted(engine.jobs()):
            engine.remove_job(job)
            say(f"removed what was left of job {job[:10]}")
    except FAILURES as error:
        raise _silent(error) from error


def remove_images(engine: ContainerEngine, say: Callable[[str], None]) -> None:
    """Remove the images of jobs, and the trial's. Raises HostRefused."""
    try:
        for name in engine.images.remove_all(trial.IMAGE):
            say(f"left the image {name} alone: a container of somebody else's uses it")
    except FAILURES as error:
        raise _silent(error) from error


def _silent(error: Exception) -> HostRefused:
    return HostRefused(f"Docker does not answer any more ({error}): start it and say 'uninstall' again")


def over(record: JobRecord) -> bool:
    """Whether this host owes the job nothing: it never began it, or the market has heard how it left it or it ended."""
    told = record.phase == "exited" and record.exit_reported
    left = record.leaving and record.goodbye
    return left or told or record.phase in ("preparing", "prepared")


def unfinished(journal: Path) -> set[str]:
    """The jobs of a journal that are not over; none where there is no journal. Raises HostRefused: it can't be read."""
    if not journal.is_file():
        return set()
    try:
        opened = Journal(journal)
    except (sqlite3.Error, ValidationError) as error:
        raise HostRefused(f"the agent's journal {journal} can't be read ({error})") from error
    try:
        unheard = {str(item.body["job_id"]) for item in opened.outgoing() if item.body.get("kind") == "exited"}
        return {record.job_id for record in opened.jobs() if not over(record) or record.job_id in unheard}
    finally:
        opened.close()


def _needed(journal: Path, here: set[str]) -> set[str]:
    """The jobs that are not over. One that a journal does not know is nobody's; without a journal all are needed."""
    if not journal.is_file():
        return here
    try:
        return unfinished(journal)
    except HostRefused:
        return here
