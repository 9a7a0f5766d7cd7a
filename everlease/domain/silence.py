"""Silence on chain: how long a host may be unheard at least, and when it admits that it was. Seconds, unix seconds."""

from everlease.domain.terms import Receipt

RECEIPT_EVERY_S = 2.0
"""A watcher signs a receipt for what it heard at least this often."""
LEAST_SILENCE_S = int(3 * RECEIPT_EVERY_S)
"""A shorter ``max_silence`` of an order would suspend a host for two receipts that were late."""
_LEAST_LEAD_S = 600
_FINAL_WAIT_S = 60


def too_short(max_silence: int) -> str | None:
    """Why no node takes an order with this ``max_silence``, or None: what the marketplace and the nodes say alike."""
    if max_silence >= LEAST_SILENCE_S:
        return None
    return f"the order's max_silence is {max_silence} s: at least {LEAST_SILENCE_S} s, three receipts, must fit in it"


def clears(receipt: Receipt, max_silence: int, suspended_at: int) -> bool:
    """Whether a receipt shows that the node was not silent for as long as the suspension claims."""
    return receipt.final or receipt.seen_at + max_silence >= suspended_at


def clearing_answer_at(suspended_at: int, answer_by: int) -> int:
    """From when on, by the chain's clock, a provider answers a suspension with a clearing receipt that is not final.

    The watcher may send a final one first, which pays for work since the last checkpoint, too: it has a minute, and at
    most a tenth of the window.
    """
    return suspended_at + min((answer_by - suspended_at) // 10, _FINAL_WAIT_S)


def bare_answer_at(suspended_at: int, answer_by: int) -> int:
    """From when on, by the chain's clock, a provider answers a suspension without a receipt that clears it.

    As late as is safe, since such a receipt may still come: a fifth of the window before its end, 10 minutes at least,
    half of the window at most.
    """
    window = answer_by - suspended_at
    return answer_by - min(window // 2, max(window // 5, _LEAST_LEAD_S))
