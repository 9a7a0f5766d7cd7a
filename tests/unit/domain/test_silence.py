"""How short an order's max_silence may be, and when a bare answer is due."""

import pytest

from everlease.domain.silence import LEAST_SILENCE_S, RECEIPT_EVERY_S, bare_answer_at, clearing_answer_at, too_short


def test_three_receipts_fit_into_the_shortest_silence() -> None:
    assert LEAST_SILENCE_S >= 3 * RECEIPT_EVERY_S
    assert too_short(LEAST_SILENCE_S) is None
    assert (
        too_short(LEAST_SILENCE_S - 1) == "the order's max_silence is 5 s: at least 6 s, three receipts, must fit in it"
    )


@pytest.mark.parametrize(
    ("window", "lead"), [(60, 30), (1000, 500), (1200, 600), (3000, 600), (3600, 720), (86_400, 17_280), (1, 0)]
)
def test_a_bare_answer_waits_as_long_as_is_safe(window: int, lead: int) -> None:
    """min(half of the window, max(a fifth of it, ten minutes)) before its end."""
    assert bare_answer_at(1000, 1000 + window) == 1000 + window - lead


def test_the_watchers_final_receipt_is_waited_for_a_minute_at_most() -> None:
    assert clearing_answer_at(1000, 1000 + 3600) == 1060
    assert clearing_answer_at(1000, 1000 + 100) == 1010
