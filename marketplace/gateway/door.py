"""Who may stand before the gateway without having proved who it is: so many in all, so many of one network.

The places of strangers are never all there are: some are kept for the networks from which staked nodes came before. A
newcomer for whom there is no place takes that of whoever has waited longest, in its own network if that has too many,
else in the network that has most. So a flood from a few networks drives itself out, and no one else.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from marketplace.networks import Buckets, network_of


class TooMany(Exception):
    """This network knocks too often: nothing is spent on it."""

    retryable = True


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """``places`` in all, ``reserved`` of them for known networks; of one network at most ``of_stranger`` or
    ``of_known``, and new ones at most ``per_second`` and ``burst`` (known networks: eight times that).
    """

    places: int = 256
    reserved: int = 128
    of_stranger: int = 32
    of_known: int = 64
    per_second: float = 4.0
    burst: float = 32.0


_KNOWN_FASTER = 8


@dataclass(eq=False, slots=True)
class Place:
    """One unauthenticated socket. ``evict`` is called once, if somebody else takes the place."""

    network: str
    known: bool
    evict: Callable[[], object]
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
        """Take a place, if need be somebody else's."""
        network = network_of(address)
        place = Place(network, network in self._known, evict)
        limits = self._limits
        mine = self._waiting.get(network, [])
        if len(mine) >= (limits.of_known if place.known else limits.of_stranger):
            self._evict(mine[0])
        strangers = self._count(known=False)
        if not place.known and strangers >= limits.places - limits.reserved:
            self._evict(self._longest_of_most(known=False))
        elif strangers + self._count(known=True) >= limits.places:
            self._evict(self._longest_of_most(known=not strangers))
        self._waiting.setdefault(network, []).append(place)
        return place

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

    def _count(self, *, known: bool) -> int:
        return sum(place.known == known for places in self._waiting.values() for place in places)

    def _longest_of_most(self, *, known: bool) -> Place:
        groups = ([place for place in places if place.known == known] for places in self._waiting.values())
        return max(groups, key=len)[0]

    def _evict(self, place: Place) -> None:
        self.leave(place)
        place.evicted = True
        place.evict()
