"""Who may stand before the gateway without having proved who it is: so many in all, so many of one network.

The places of strangers are never all there are: some are kept for the networks from which staked nodes came before, and
a few that those can't take are kept for strangers. A newcomer for whom there is no place takes that of somebody who has
said nothing yet, of the network that has most; else the last place of the network that has most. Where every network
has one, nobody is driven out whose hello waits or who just came: the newcomer has to come again.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from marketplace.networks import Buckets, network_of


class TooMany(Exception):
    """This network knocks too often, or there is no place: nothing is spent on it."""

    retryable = True


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """``places`` in all, ``reserved`` of them for known networks, ``of_nobody`` for strangers; of one network at most
    ``of_stranger`` or ``of_known``, and new ones at most ``per_second`` and ``burst`` (known networks: eight times
    that).
    """

    places: int = 256
    reserved: int = 128
    of_nobody: int = 16
    of_stranger: int = 32
    of_known: int = 64
    per_second: float = 4.0
    burst: float = 32.0


_KNOWN_FASTER = 8
FRESH_S = 1.0
"""So long a socket may stay silent before one of a network that has no other place takes its own."""


@dataclass(eq=False, slots=True)
class Place:
    """One unauthenticated socket. ``evict`` is called once, if somebody else takes the place. ``spoke``: its hello is
    here and waits to be checked.
    """

    network: str
    known: bool
    since: float
    evict: Callable[[], object]
    spoke: bool = field(default=False)
    evicted: bool = field(default=False)


class Door:
    """Lives on the event loop alone."""

    def __init__(self, limits: DoorLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._strangers = Buckets(limits.per_second, limits.burst)
        self._friends = Buckets(limits.per_second * _KNOWN_FASTER, limits.burst * _KNOWN_FASTER)
        self._waiting: dict[str, list[Place]] = {}
        self._known: frozenset[str] = frozenset()

    def know(self, networks: frozenset[str]) -> None:
        """From now on these are the networks of known nodes."""
        self._known = networks

    def check(self, address: str) -> None:
        """Count a knock. Raises TooMany."""
        network = network_of(address)
        buckets = self._friends if network in self._known else self._strangers
        if not buckets.take(network, self._clock()):
            raise TooMany

    def enter(self, address: str, evict: Callable[[], object]) -> Place:
        """Take a place, if need be somebody else's. Raises TooMany."""
        network = network_of(address)
        place = Place(network, network in self._known, self._clock(), evict)
        if (crowded := self._crowd(place)) is not None:
            self._evict(self._victim(crowded, place))
        self._waiting.setdefault(network, []).append(place)
        return place

    def _crowd(self, place: Place) -> list[Place] | None:
        """Those of whom one has to go before this one may come; None where there is a place."""
        limits, mine = self._limits, self._waiting.get(place.network, [])
        if len(mine) >= (limits.of_known if place.known else limits.of_stranger):
            return mine
        everybody = [other for places in self._waiting.values() for other in places]
        strangers = [other for other in everybody if not other.known]
        if not place.known and len(strangers) >= limits.places - limits.reserved:
            return strangers
        if len(everybody) < limits.places:
            return None
        theirs = len(strangers) > limits.of_nobody if place.known else len(strangers) >= limits.of_nobody
        return strangers if theirs else [other for other in everybody if other.known]

    def _victim(self, crowd: list[Place], newcomer: Place) -> Place:
        silent = _largest(other for other in crowd if not other.spoke)
        # Strangers make room for known networks at once: those have this place only while nobody they know wants it.
        at_once = newcomer.known and not crowd[0].known
        if silent and (len(silent) > 1 or at_once or self._clock() - silent[0].since >= FRESH_S):
            return silent[0]
        most = _largest(crowd)
        if len(most) > 1 or at_once:
            return next((other for other in most if not other.spoke), most[-1])
        raise TooMany

    def leave(self, place: Place) -> None:
        """Give a place back; again is fine."""
        of_network = self._waiting.get(place.network, [])
        if place in of_network:
            of_network.remove(place)
            if not of_network:
                del self._waiting[place.network]

    def clear(self) -> None:
        """Drive everybody out."""
        for place in [place for places in self._waiting.values() for place in places]:
            self._evict(place)

    def __len__(self) -> int:
        return sum(len(places) for places in self._waiting.values())

    def _evict(self, place: Place) -> None:
        self.leave(place)
        place.evicted = True
        place.evict()


def _largest(places: Iterable[Place]) -> list[Place]:
    """The places of the network that has most of them, in the order in which they were taken."""
    networks: dict[str, list[Place]] = {}
    for place in places:
        networks.setdefault(place.network, []).append(place)
    return max(networks.values(), key=len, default=[])
