"""A long, regular history of leases: what one job of it emits, for chains that benchmarks fill."""

from hashlib import sha256

from everlease.chain._generated import events as ev
from everlease.chain._generated.enums import CreditReason
from everlease.chain.deployment import Deployment
from tests.support.deployed import TERMS

ESCROW, STAKING = "0x" + "e5" * 20, "0x" + "57" * 20
DEPLOYMENT = Deployment(31337, ESCROW, STAKING, "0x" + "a5" * 20, 1, TERMS)
EVENTS_PER_JOB = 20
EVENTS_PER_BLOCK = 100
TENANTS, PROVIDERS = 997, 97


def job_events(job: str, lease: str, tenant: str, provider: str) -> list[ev.Event]:
    """The 20 events of one job's life: funded, opened, collected from with a credit now and then, closed, refunded."""
    return [
        ev.JobFunded(job, tenant, tenant, job, 10**6, 10**9, 10**6, 5, 3, 1000, 2**40, 7),
        ev.LeaseOpened(job, lease, provider, provider, 1, *[10**6] * 3, 10, 1, 4000, 9000, 9060, 7),
        *(ev.LeaseCollected(job, lease, 10 * n, 4000 + n, n, 100, 1, 10**6, job) for n in range(1, 16)),
        ev.Credited(provider, 1500, CreditReason.EPOCH_FEE),
        ev.LeaseClosed(job, lease, tenant),
        ev.Credited(tenant, 10, CreditReason.REFUND),
    ]


def job_names(number: int) -> tuple[str, str, str, str]:
    """Job, lease, tenant and provider of the ``number``-th job."""
    tenant, provider = number % TENANTS + 1, number % PROVIDERS + 1000
    return f"0x{number:064x}", f"0x{number + 2**128:064x}", f"0x{tenant:040x}", f"0x{provider:040x}"


STAND_INS = (
    "0x" + sha256(b"job").hexdigest(),
    "0x" + sha256(b"lease").hexdigest(),
    "0x" + sha256(b"tenant").hexdigest()[:40],
    "0x" + sha256(b"provider").hexdigest()[:40],
)
"""Names to encode one job's events with: encoding is slow, so every other job's are that text with its names put in."""


def renamed(text: str, number: int) -> str:
    """A text in hex about the stand-ins as one about the ``number``-th job."""
    for stand_in, name in zip(STAND_INS, job_names(number), strict=True):
        text = text.replace(stand_in[2:], name[2:])
    return text
