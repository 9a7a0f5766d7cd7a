"""The reserve: what the winner of an auction is paid at most, fixed before any bid is seen.

It starts at a figure from settled prices and rises in rounds of equal length to the order's maximum. Within a round a
bid does not change what its own provider may be paid; who bids higher than it would have to, to win in a later round,
may lose to whoever bids less, and is paid the order's maximum at most (docs/protocol.md, "The price").
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from everlease.domain.jobspec import Resources

ROUNDS = 10
"""Steps from where a reserve starts to the order's maximum."""
LEAST_PROVIDERS = 5
"""Fewer providers than these say too little of a class: the posted figure is used."""
MOST_OBSERVATIONS = 256
"""Settled leases that one auction looks at: those of the most paid seconds."""
WINDOW_DAYS = 90
"""How old a lease's award may be to be looked at."""

Cap = Callable[[str], int]
"""What a provider is paid at most in a round, in base units an hour."""
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Posted:
    """What a deployment posts where too few leases say what a job costs: base units an hour for each CPU, GiB of
    memory and GPU that was begun.
    """

    cpu: int
    gib: int
    gpu: int

    def rate(self, resources: Resources) -> int:
        """Base units an hour."""
        return self.cpu * _cpus(resources) + self.gib * _gib(resources) + self.gpu * resources.gpus


@dataclass(frozen=True, slots=True)
class Observation:
    """A settled lease that a rival's bid priced: base units an hour, paid seconds. ``day`` counts from 1970."""

    price_class: str
    tenant: str
    provider: str
    day: int
    rate: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Figure:
    """Where a reserve starts, in base units an hour. ``providers``: how many it comes from; 0 for the posted one."""

    rate: int
    providers: int = 0


@dataclass(frozen=True, slots=True)
class Reserve:
    """An auction's reserve, as fixed when it opens. Base units an hour; seconds since then.

    ``start`` is where it begins for a provider, except for those in ``own``, whose leases are left out for them.
    ``source`` says in words where ``start`` comes from.
    """

    start: int
    maximum: int
    window_s: float
    rise_s: float
    own: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def at(self, provider: str, number: int) -> int:
        """What this provider is paid at most if it wins in round ``number``."""
        start = min(self.own.get(provider, self.start), self.maximum)
        return start + (self.maximum - start) * min(max(number, 0), ROUNDS) // ROUNDS

    def begins(self, number: int) -> float:
        """When a round begins; the first lasts from the call for bids on."""
        return self.window_s + self.rise_s * (number / ROUNDS) if number > 0 else 0.0

    def round_at(self, age_s: float) -> int:
        """The round at that age of the auction; from ``ROUNDS`` on the reserve is the order's maximum."""
        return sum(self.begins(number) <= age_s for number in range(1, ROUNDS + 1))


def class_of(resources: Resources) -> str:
    """Leases of one class are compared: as many GPUs, else CPUs and GiB of memory rounded up to powers of two."""
    if resources.gpus:
        return f"gpu/{resources.gpus}"
    return f"cpu/{_power(_cpus(resources))}/{_power(_gib(resources))}"


def figure(
    observations: Iterable[Observation], resources: Resources, posted: Posted, bidder: str | None = None
) -> Figure:
    """Where the reserve of a job with these resources starts for ``bidder``; None for one without leases of its own.

    The median of settled prices, weighted by paid seconds: of each tenant, provider and day the longest lease, without
    those that the bidder gave or took. The posted figure where fewer than ``LEAST_PROVIDERS`` are left.
    """
    wanted = class_of(resources)
    best: dict[tuple[str, str, int], Observation] = {}
    for seen in observations:
        if seen.price_class != wanted or seen.seconds <= 0 or bidder in (seen.provider, seen.tenant):
            continue
        key = (seen.tenant, seen.provider, seen.day)
        known = best.get(key)
        if known is None or (seen.seconds, -seen.rate) > (known.seconds, -known.rate):
            best[key] = seen
    providers = len({seen.provider for seen in best.values()})
    if providers < LEAST_PROVIDERS:
        return Figure(posted.rate(resources))
    return Figure(_median(best.values()), providers)


def fix(
    observations: Collection[Observation],
    resources: Resources,
    posted: Posted,
    *,
    maximum: int,
    window_s: float,
    rise_s: float,
    last: tuple[str, int] | None = None,
) -> Reserve:
    """The reserve of an auction that opens now.

    ``last``: in a recovery the job's last provider and rate. The reserve starts there; for that provider no higher
    than without its leases.
    """
    if last is not None:
        provider, rate = last
        own = {provider: min(rate, figure(observations, resources, posted, provider).rate)}
        return Reserve(rate, maximum, window_s, rise_s, own, "the job's last rate")
    found = figure(observations, resources, posted)
    parties = {seen.provider for seen in observations} | {seen.tenant for seen in observations}
    figures = {party: figure(observations, resources, posted, party).rate for party in parties}
    own = {party: rate for party, rate in sorted(figures.items()) if rate != found.rate}
    source = f"settled prices of {found.providers} providers" if found.providers else "the posted prices"
    return Reserve(found.rate, maximum, window_s, rise_s, own, source)


def wash_cost(observations: Collection[Observation], rate: int, fee_bps: int) -> int:
    """Base units that it costs to lift the median of these observations to ``rate`` by leases to oneself.

    They need more paid seconds than all observations below ``rate`` have over those that are not, and what a tenant
    pays its own provider comes back less the fee: ``fee_bps`` parts in 10,000. Epoch fees, gas, and the collateral
    that is bound meanwhile come on top.
    """
    balance = sum(seen.seconds if seen.rate < rate else -seen.seconds for seen in observations)
    seconds = max(balance + 1, 0)
    return -(-rate * seconds * fee_bps // (3600 * 10_000))


def _median(observations: Iterable[Observation]) -> int:
    """The lowest rate at which half of the paid seconds or more were not dearer."""
    weights: defaultdict[int, int] = defaultdict(int)
    for seen in observations:
        weights[seen.rate] += seen.seconds
    half, reached = sum(weights.values()), 0
    for rate in sorted(weights):
        reached += 2 * weights[rate]
        if reached >= half:
            return rate
    raise ValueError("a median takes one observation at least")


def _cpus(resources: Resources) -> int:
    return -(-resources.cpu_millis // 1000)


def _gib(resources: Resources) -> int:
    return -(-resources.memory_bytes // _GIB)


def _power(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()
