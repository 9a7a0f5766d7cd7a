"""Limits by network: an IPv4 address, or the /64 that a single IPv6 subscriber has at least; and by site, as one
subscriber may have up to a /48.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network

_MOST_BUCKETS = 10_000


def network_of(address: str) -> str:
    """The network that an address counts for; an address that is none counts for itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)


def site_of(network: str) -> str:
    """The widest network that may be one subscriber's: the /48 of an IPv6 network, anything else itself."""
    try:
        parsed = ip_network(network)
    except ValueError:
        return network
    return str(parsed.supernet(new_prefix=48)) if parsed.prefixlen == 64 else network


class Bucket:
    """Fills with time, ``per_second`` up to ``most``; each taking empties it by one."""

    def __init__(self, per_second: float, most: float, now: float) -> None:
        self._per_second, self._most = per_second, most
        self._left, self._at = most, now

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Buckets:
    """A bucket for each network. Memory is bounded: those unused for longest are forgotten first."""

    def __init__(self, per_second: float, most: float) -> None:
        self._per_second, self._most = per_second, most
        self._of: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, network: str, now: float) -> bool:
        """Take one of this network's, if there is one."""
        bucket = self._of.get(network)
        if bucket is None:
            bucket = self._of[network] = Bucket(self._per_second, self._most, now)
            if len(self._of) > _MOST_BUCKETS:
                self._of.popitem(last=False)
        self._of.move_to_end(network)
        return bucket.take(now)
