"""After a start of the agent: what a killed one left behind and no journal entry names."""

import logging

from provider_agent.host import Host
from provider_agent.images import sweep_archives
from provider_agent.runtime.commands import remove_tree
from provider_agent.runtime.errors import RuntimeFault

log = logging.getLogger(__name__)


def sweep_host(host: Host) -> None:
    """Remove containers, networks and folders of jobs that the journal does not know, and half-fetched archives."""
    known = {record.job_id for record in host.journal.jobs()}
    for job in host.engine.jobs() - known:
        log.warning("removing what is here of job %s: the journal does not have it", job[:10])
        try:
            host.engine.remove_job(job)
        except RuntimeFault as error:
            log.error("job %s: something of it stays: %s", job[:10], error)
    jobs = host.folders.root / "jobs"
    for folder in jobs.iterdir() if jobs.is_dir() else ():
        if folder.name not in known:
            remove_tree(folder)
    if host.folders.images.is_dir():
        sweep_archives(host.folders.images)
