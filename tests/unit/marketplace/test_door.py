"""Places before the gateway: bounded, kept for the known, taken back from those who hold most."""

import pytest

from marketplace.gateway.door import FRESH_S, Door, DoorLimits, Place, TooMany
from marketplace.networks import Bucket, Buckets, network_of, site_of

LIMITS = DoorLimits(places=8, reserved=3, of_nobody=1, of_stranger=3, of_known=5, per_second=1, burst=2)


class Visitors:
    """A door, and who was driven out of it."""

    def __init__(self, known: frozenset[str] = frozenset(), limits: DoorLimits = LIMITS) -> None:
        self.now = 0.0
        self.door = Door(limits, lambda: self.now)
        self.door.know(known)
        self.driven_out: list[str] = []

    def come(self, address: str, name: str = "") -> Place:
        return self.door.enter(address, lambda: self.driven_out.append(name or address))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_ipv6_subscriber_is_one_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_network_over_its_limit_drives_out_its_own_oldest() -> None:
    visitors = Visitors()
    visitors.come("10.0.0.9", "quiet")
    for number in range(5):
        visitors.come(f"2001:db8::{number}", str(number))
    assert visitors.driven_out == ["0", "1"]
    assert len(visitors.door) == 4


def test_a_flood_of_many_networks_drives_out_whoever_has_most_and_no_single_visitor() -> None:
    visitors = Visitors()
    visitors.come("10.0.0.9", "alone")
    for number in range(12):
        visitors.come(f"10.0.1.{number % 2}", f"flood {number}")
    assert "alone" not in visitors.driven_out
    assert len(visitors.door) == LIMITS.places - LIMITS.reserved


def test_places_of_known_networks_are_never_taken_by_strangers() -> None:
    known = "192.0.2.1"
    visitors = Visitors(frozenset({known}))
    mine = [visitors.come(known, "known") for _ in range(3)]
    for number in range(50):
        visitors.now += 1
        visitors.come(f"10.0.{number}.1", "stranger")
    assert set(visitors.driven_out) == {"stranger"}
    assert not any(place.evicted for place in mine)
    for _ in range(2):
        visitors.come(known, "known")
    assert len(visitors.door) == LIMITS.places
    assert set(visitors.driven_out) == {"stranger"}, "a known one takes a stranger's place"


def test_when_all_known_nodes_come_at_once_nobody_loses_the_place_where_its_hello_waits() -> None:
    addresses = [f"10.1.{number // 250}.{number % 250}" for number in range(300)]
    visitors = Visitors(frozenset(addresses), DoorLimits())
    refused = 0
    for address in addresses:
        visitors.now += 0.001
        try:
            visitors.come(address).spoke = True
        except TooMany:
            refused += 1
    assert (visitors.driven_out, refused, len(visitors.door)) == ([], 44, 256)


def test_a_socket_that_stays_silent_gives_way_to_another_network() -> None:
    visitors = Visitors()
    places = [visitors.come(f"10.0.{number}.1") for number in range(5)]
    with pytest.raises(TooMany):
        visitors.come("10.0.9.1")
    visitors.now = FRESH_S
    for place in places[:2]:
        place.spoke = True
    visitors.come("10.0.9.1")
    assert visitors.driven_out == ["10.0.2.1"], "the oldest of the silent"


def test_of_a_crowd_whose_hellos_wait_the_last_goes() -> None:
    visitors = Visitors()
    for number in range(3):
        visitors.come("10.0.0.1", f"crowd {number}").spoke = True
    for number in range(1, 4):
        visitors.come(f"10.0.{number}.1").spoke = True
    assert visitors.driven_out == ["crowd 2"]
    visitors.come("10.0.0.1", "newest").spoke = True
    assert visitors.driven_out == ["crowd 2", "crowd 1"]


def test_a_few_known_networks_leave_places_to_strangers() -> None:
    known = [f"192.0.2.{number}" for number in range(4)]
    visitors = Visitors(frozenset(known), DoorLimits())
    for number in range(256):
        visitors.come(known[number % 4], "known")
    mine = [visitors.come(f"10.0.{number}.1", "stranger") for number in range(16)]
    for number in range(512):
        visitors.come(known[number % 4], "known")
    assert set(visitors.driven_out) == {"known"}
    assert len(visitors.door) == 256
    assert not any(place.evicted for place in mine)


@pytest.mark.parametrize(
    ("network", "site"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2::/64", "2001:db8:1::/48"), ("any/64", "any/64"), ("", "")],
)
def test_a_line_with_many_ipv6_networks_is_one_site(network: str, site: str) -> None:
    assert site_of(network) == site


def test_a_line_with_many_ipv6_networks_drives_out_itself_and_nobody_else() -> None:
    visitors = Visitors(limits=DoorLimits())
    alone = [visitors.come(f"10.0.{number}.1", "alone") for number in range(100)]
    pair = [visitors.come("10.1.0.1", "pair") for _ in range(2)]
    for number in range(300):
        visitors.come(f"2001:db8:1:{number:x}::1", "line")
    assert not any(place.evicted for place in (*alone, *pair))
    assert set(visitors.driven_out) == {"line"}


def test_a_line_with_many_ipv6_networks_has_twice_the_places_of_one() -> None:
    visitors = Visitors(limits=DoorLimits())
    for number in range(100):
        visitors.come(f"2001:db8:1:{number:x}::1", str(number))
    assert len(visitors.door) == 64
    assert visitors.driven_out[:2] == ["0", "1"]


def test_a_line_with_many_ipv6_networks_knocks_four_times_as_often_as_one() -> None:
    visitors = Visitors()
    for number in range(8):
        visitors.door.check(f"2001:db8:1:{number}::1")
    with pytest.raises(TooMany):
        visitors.door.check("2001:db8:1:ffff::1")
    visitors.door.check("2001:db8:2::1")


def test_a_known_network_has_a_limit_too() -> None:
    visitors = Visitors(frozenset({"192.0.2.1"}))
    for _ in range(6):
        visitors.come("192.0.2.1")
    assert visitors.driven_out == ["192.0.2.1"]


def test_a_place_is_given_back_once() -> None:
    visitors = Visitors()
    place = visitors.come("10.0.0.1")
    visitors.door.leave(place)
    visitors.door.leave(place)
    assert len(visitors.door) == 0


def test_a_door_that_closes_drives_everybody_out() -> None:
    visitors = Visitors(frozenset({"192.0.2.1"}))
    for address in ("10.0.0.1", "192.0.2.1", "10.0.0.1"):
        visitors.come(address)
    visitors.door.clear()
    assert sorted(visitors.driven_out) == ["10.0.0.1", "10.0.0.1", "192.0.2.1"]
    assert len(visitors.door) == 0


def test_who_knocks_too_often_waits_and_known_ones_may_more_often() -> None:
    visitors = Visitors(frozenset({"192.0.2.1"}))
    for _ in range(2):
        visitors.door.check("2001:db8::1")
    with pytest.raises(TooMany):
        visitors.door.check("2001:db8::2")
    visitors.door.check("10.0.0.1")
    for _ in range(16):
        visitors.door.check("192.0.2.1")
    with pytest.raises(TooMany):
        visitors.door.check("192.0.2.1")
    visitors.now = 1.0
    visitors.door.check("2001:db8::2")


def test_buckets_fill_with_time_and_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(2.0, 3.0, 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(1.0) for _ in range(3)] == [True, True, False]
    monkeypatch.setattr("marketplace.networks._MOST_BUCKETS", 2)
    buckets = Buckets(0.001, 1)
    assert [buckets.take(name, 0.0) for name in ("a", "a", "b", "c")] == [True, False, True, True]
    assert buckets.take("a", 0.0), "forgotten"
