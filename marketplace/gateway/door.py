"""Who may stand before the gateway without having proved who it is: so many in all, so many of one network.

The places of strangers are never all there are: some are kept for the networks from which staked nodes came before, and
a few that those can't take are kept for strangers. A newcomer for whom there is no place takes that of somebody who has
said nothing yet, of the network that has most; else the last place of the network that has most. Where every network
has one, nobody is driven out whose hello waits or who just came: the newcomer has to come again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from marketplace.networks import Buckets, network_of, site_of


class TooMany(Exception):
    """This network knocks too often, or there is no place: nothing is spent on it."""

    retryable = True


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """``places`` in all, ``reserved`` of them for known networks, ``of_nobody`` for strangers; of one network at most
    ``of_stranger`` or ``of_known``, and new ones at most ``per_second`` and ``burst`` (known networks: eight times
    that). A site, where that is wider than a network, has twice the places and four times the knocks.
    """

    places: int = 256
    reserved: int = 128
    of_nobody: int = 16
    of_stranger: int = 32
    of_known: int = 64
    per_second: float = 4.0
    burst: float = 32.0


_KNOWN_FASTER = 8
_SITE_WIDER, _SITE_FASTER = 2, 4
FRESH_S = 1.0
"""So long a socket may stay silent before one of a network that has no other place takes its own."""


class _Knocks:
    """How often networks, and their sites, may come."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._networks = Buckets(per_second, burst)
        self._sites = Buckets(per_second * _SITE_FASTER, burst * _SITE_FASTER)

    def take(self, network: str, now: float) -> bool:
        return self._networks.take(network, now) and self._sites.take(site_of(network), now)


@dataclass(eq=False, slots=True)
class Place:
    """One unauthenticated socket. ``evict`` is called once, if somebody else takes the place. ``spoke``: its hello is
    here and waits to be checked.
    """

    network: str
    site: str
    known: bool
    since: float
    evict: Callable[[], object]
    spoke: bool = field(default=False)
    evicted: bool = field(default=False)


class Door:
    """Lives on the event loop alone."""

    def __init__(self, limits: DoorLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        faster = limits.per_second * _KNOWN_FASTER, limits.burst * _KNOWN_FASTER
        self._strangers, self._friends = _Knocks(limits.per_second, limits.burst), _Knocks(*faster)
        self._waiting: list[Place] = []
        self._known: frozenset[str] = frozenset()

    def know(self, networks: frozenset[str]) -> None:
        """From now on these are the networks of known nodes."""
        self._known = networks

    def check(self, address: str) -> None:
        """Count a knock. Raises TooMany."""
        network = network_of(address)
        knocks = self._friends if network in self._known else self._strangers
        if not knocks.take(network, self._clock()):
            raise TooMany

    def enter(self, address: str, evict: Callable[[], object]) -> Place:
        """Take a place, if need be somebody else's. Raises TooMany."""
        network = network_of(address)
        place = Place(network, site_of(network), network in self._known, self._clock(), evict)
        if (crowd := self._crowd(place)) is not None:
            self._evict(self._victim(crowd, place))
        self._waiting.append(place)
        return place

    def _crowd(self, place: Place) -> list[Place] | None:
        """Those of whom one has to go before this one may come; None where there is a place."""
        limits = self._limits
        of_one = limits.of_known if place.known else limits.of_stranger
        mine = [other for other in self._waiting if other.network == place.network]
        if len(mine) >= of_one:
            return mine
        alike = [other for other in self._waiting if other.site == place.site and other.known == place.known]
        if len(alike) >= of_one * _SITE_WIDER:
            return alike
        strangers = [other for other in self._waiting if not other.known]
        if not place.known and len(strangers) >= limits.places - limits.reserved:
            return strangers
        if len(self._waiting) < limits.places:
            return None
        theirs = len(strangers) > limits.of_nobody if place.known else len(strangers) >= limits.of_nobody
        return strangers if theirs else [other for other in self._waiting if other.known]

    def _victim(self, crowd: list[Place], newcomer: Place) -> Place:
        # Strangers make room for known networks at once: those have this place only while nobody they know wants it.
        at_once = newcomer.known and not crowd[0].known
        silent, alone = _largest([other for other in crowd if not other.spoke])
        if silent and (not alone or at_once or self._clock() - silent[0].since >= FRESH_S):
            return silent[0]
        most, alone = _largest(crowd)
        if alone and not at_once:
            raise TooMany
        return next((other for other in most if not other.spoke), most[-1])

    def leave(self, place: Place) -> None:
        """Give a place back; again is fine."""
        if place in self._waiting:
            self._waiting.remove(place)

    def clear(self) -> None:
        """Drive everybody out."""
        for place in list(self._waiting):
            self._evict(place)

    def __len__(self) -> int:
        return len(self._waiting)

    def _evict(self, place: Place) -> None:
        self.leave(place)
        place.evicted = True
        place.evict()


def _largest(places: list[Place]) -> tuple[list[Place], bool]:
    """Of the site that has most places those of its largest network, in the order in which they were taken; and whether
    that is all the site has, and one.
    """
    site = _most(places, lambda place: place.site)
    return _most(site, lambda place: place.network), len(site) == 1


def _most(places: list[Place], key: Callable[[Place], str]) -> list[Place]:
    groups: dict[str, list[Place]] = {}
    for place in places:
        groups.setdefault(key(place), []).append(place)
    return max(groups.values(), key=len, default=[])
