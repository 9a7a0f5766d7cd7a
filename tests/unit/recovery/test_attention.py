"""The monitor knows when it was itself away."""

from recovery.monitor import Attention


def test_an_unbroken_watch_counts_from_its_first_tick() -> None:
    attention = Attention()
    assert [attention.tick(100 + n / 5, n / 5) for n in range(10)] == [100.0] * 10


def test_a_pause_of_the_process_starts_the_watch_anew() -> None:
    attention = Attention()
    attention.tick(100, 0)
    assert attention.tick(130, 30) == 130
    assert attention.tick(130.2, 30.2) == 130


def test_a_suspended_machine_or_a_jump_of_the_clock_starts_the_watch_anew() -> None:
    attention = Attention()
    attention.tick(100, 0)
    assert attention.tick(4000, 0.2) == 4000, "forward: the monotonic clock did not move"
    assert attention.tick(3000, 0.4) == 3000, "backward"


def test_a_lost_database_breaks_the_watch() -> None:
    attention = Attention()
    attention.tick(100, 0)
    attention.lost()
    assert attention.tick(100.4, 0.4) == 100.4
