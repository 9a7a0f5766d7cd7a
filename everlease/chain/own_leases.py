"""Leases of a provider as the chain's events tell of them, in bounded ranges: for whoever lost its own notes."""

from collections.abc import Iterator
from dataclasses import dataclass

from everlease.chain._generated.events import JobFunded, LeaseOpened
from everlease.chain.base import ChainReader, Log
from everlease.chain.deployment import Deployment
from everlease.chain.errors import TooManyResults
from everlease.chain.event_codec import decode_event
from everlease.chain.typed_data import lease_id
from everlease.domain.terms import LeaseParams

RANGE = 2_000
"""Blocks of one request; endpoints that allow fewer are asked for half, again and again."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One LeaseOpened event and its block."""

    event: LeaseOpened
    block: int


@dataclass(frozen=True, slots=True)
class Looked:
    """What a range of blocks held; ``last`` is where it ended."""

    last: int
    found: tuple[Opened, ...]


def opened_by(chain: ChainReader, deployment: Deployment, provider: str, first: int, last: int) -> Iterator[Looked]:
    """Leases of this provider in blocks first..last, a range at a time. Raises ChainError."""
    topics = (_topic(LeaseOpened), None, None, "0x" + provider[2:].lower().rjust(64, "0"))
    while first <= last:
        until, logs = _range(chain, deployment, first, last, topics)
        found = ((decode_event(log), log.block_number) for log in logs)
        yield Looked(until, tuple(Opened(event, block) for event, block in found if isinstance(event, LeaseOpened)))
        first = until + 1


def params_of(chain: ChainReader, deployment: Deployment, opened: Opened) -> LeaseParams | None:
    """The params of a lease from its event and that of its job's funding, which came before it; None without that.

    Looks backwards from the lease's block. Raises ChainError.
    """
    last, step = opened.block, RANGE
    topics = (_topic(JobFunded), opened.event.job_id)
    while last >= deployment.block:
        first = max(last - step + 1, deployment.block)
        until, logs = _range(chain, deployment, first, last, topics)
        if until < last:
            step = until - first + 1
            continue
        for log in logs:
            funded = decode_event(log)
            if isinstance(funded, JobFunded):
                return _params(opened.event, funded)
        last = first - 1
    return None


def _params(event: LeaseOpened, funded: JobFunded) -> LeaseParams | None:
    params = LeaseParams(
        job_id=event.job_id,
        tenant=funded.tenant,
        watcher=funded.watcher,
        provider=event.provider,
        node=event.node,
        epoch=event.epoch,
        max_silence=funded.max_silence,
        rate=event.rate,
        collateral=event.collateral,
        slot=event.slot,
    )
    return params if lease_id(params) == event.lease_id else None


def _range(
    chain: ChainReader, deployment: Deployment, first: int, last: int, topics: tuple[str | None, ...]
) -> tuple[int, list[Log]]:
    """Logs from ``first`` on, and the block up to which they are complete."""
    last = min(last, first + RANGE - 1)
    while True:
        try:
            return last, chain.logs([deployment.escrow], first, last, topics)
        except TooManyResults:
            if last == first:
                raise
            last = first + (last - first) // 2


def _topic(kind: type[LeaseOpened] | type[JobFunded]) -> str:
    return "0x" + kind.TOPIC0.hex()
