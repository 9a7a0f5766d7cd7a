"""Which job a command means: by its whole id, the first characters of its id, or its name."""

import re
from collections.abc import Iterator

from everlease.cli.context import Context
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.market import Market
from everlease.cli.output import ago
from everlease.domain.job import ENDED, JobState
from everlease.wire.http import JobList, JobOut

_ID = re.compile(r"0x[0-9a-f]{64}")
_PREFIX = re.compile(r"0x[0-9a-f]{4,63}")
_SHOWN = 10


def find_job(context: Context, wanted: str) -> JobOut:
    """The job with this id, or the wallet's only one with this name or whose id begins like this; among several the
    only one that has not ended. Raises CliError that lists them where that leaves more than one."""
    begin = wanted.lower()
    if _ID.fullmatch(begin):
        return job_with(context.market, begin)
    is_prefix = _PREFIX.fullmatch(begin) is not None
    found = [job for job in _jobs(context) if job.name == wanted or (is_prefix and job.id.startswith(begin))]
    living = [job for job in found if JobState(job.state) not in ENDED]
    if len(living) == 1 or len(found) == 1:
        return (living or found)[0]
    if not found:
        raise CliError(
            ExitCode.NOT_FOUND,
            f"you have no job {wanted!r}: 'everlease job list' shows them; give a name, or of an id at least 0x and "
            "four digits",
        )
    raise CliError(ExitCode.INVALID, _several(wanted, living or found))


def job_with(market: Market, job_id: str) -> JobOut:
    """The job with this whole id, in lower case. Raises CliError, also where the marketplace answers with another."""
    answer = market.get(f"/v1/jobs/{job_id}", JobOut)
    if answer.id != job_id:
        raise CliError(ExitCode.REFUSED, f"asked for job {job_id}, the marketplace answers with job {answer.id}")
    return answer


def _jobs(context: Context) -> Iterator[JobOut]:
    cursor: str | None = None
    while True:
        page = context.market.get("/v1/jobs", JobList, params={"cursor": cursor, "limit": 200})
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _several(wanted: str, found: list[JobOut]) -> str:
    lines = [f"  {job.id}  {job.name}  {job.state}, {ago(job.created_at)}" for job in found[:_SHOWN]]
    more = [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return "\n".join([f"{wanted!r} fits {len(found)} jobs; give the id of one:", *lines, *more])
