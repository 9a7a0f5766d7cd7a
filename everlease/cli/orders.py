"""The order that a launch signs."""

import secrets

from everlease.domain.jobspec import spec_hash
from everlease.domain.terms import Order
from everlease.wire.http import MarketOut
from everlease.wire.jobfile import JobFile
from everlease.wire.spec import SpecModel

_LEASES_A_RECOVERY = 4
"""How many leases an order has room for, for each provider that may lose the job: most may come to nothing."""


def make_order(job: JobFile, spec: SpecModel, market: MarketOut, tenant: str, now: int) -> Order:
    """The order that a job file and a market's suggested terms make; the nonce is random."""
    suggested = market.suggested
    collateral = job.min_collateral if job.min_collateral is not None else suggested["min_collateral"]
    return Order(
        tenant=tenant,
        watcher=market.watcher.lower(),
        job_spec=spec_hash(spec.to_domain()),
        max_rate_per_hour=job.max_price_per_hour,
        deposit=job.deposit,
        min_collateral=collateral,
        max_silence=suggested["max_silence"],
        max_epochs=max(_LEASES_A_RECOVERY * (job.recovery.max_recoveries + 1), suggested["max_epochs"]),
        epoch_fee=suggested["epoch_fee"],
        deadline=now + job.lifetime,
        nonce=secrets.randbits(256),
    )
