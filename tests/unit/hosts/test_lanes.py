"""Columns side by side: a kind of host is never in two at once, and a column that fails begins no further one."""

import threading

import pytest
from hosts.lanes import Lanes
from hosts.registry import Scenario


class Player:
    """Plays nothing; each column waits until ``together`` columns are there, where that is asked for."""

    def __init__(self, together: int = 1) -> None:
        self.played: list[str] = []
        self.at_once: set[frozenset[str]] = set()
        self._now: set[str] = set()
        self._lock = threading.Lock()
        self._together = threading.Barrier(together, timeout=10)

    def __call__(self, column: str, scenarios: list[Scenario]) -> None:
        with self._lock:
            self._now.add(column)
            self.at_once.add(frozenset(self._now))
        self._together.wait()
        with self._lock:
            self._now.remove(column)
            self.played.append(column)


def test_two_columns_are_played_at_once() -> None:
    player = Player(together=2)
    Lanes([("a", []), ("b", []), ("c", []), ("d", [])], 2, player).run()
    assert sorted(player.played) == ["a", "b", "c", "d"]


def test_a_kind_of_host_is_in_one_column_at_a_time() -> None:
    player = Player()
    Lanes([("a", []), ("a+b", []), ("b", []), ("c", [])], 4, player).run()
    assert sorted(player.played) == ["a", "a+b", "b", "c"]
    assert not [seen for seen in player.at_once if "a+b" in seen and seen & {"a", "b"}]


def test_after_a_failure_no_further_column_begins() -> None:
    played: list[str] = []

    def fail(column: str, scenarios: list[Scenario]) -> None:
        played.append(column)
        raise RuntimeError(column)

    with pytest.raises(RuntimeError, match="a"):
        Lanes([("a", []), ("b", [])], 1, fail).run()
    assert played == ["a"]
