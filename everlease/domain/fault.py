"""Whose fault it was that a lease was suspended, by evidence that the accused doesn't write. Pure.

Rules, the first that applies decides:
  told nothing            the node was never handed its Prepare                          not the host's
  outage                  a part of the market, or the chain, was down meanwhile; of
                          one that fell silent: gateway or database                      not the host's
  Start never sent        and its Prepare did not fail: somebody else ended the award    not the host's
  silent                  its heartbeats stopped, and everything else was up             the host's
  heard to the end        nothing failed and it was not silent                           not the host's
  worked elsewhere        the failed step worked at another provider, same inputs        the host's
and once a third of the answer window went by, so that a host that can do it has had the time to show it:
  failed elsewhere        the failed step failed at another proven one, same inputs      not the host's
  nothing shows it        none of these, and the job's deposit bears the bond            not the host's
Until then the case is open. To clear a lease gives the job's bond to its provider, so the last rule holds only while
fees and bonds of leases that never served are within 5 % of the job's deposit: else failing would pay. Beyond that the
host answers for itself, for the drop penalty at most.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

FAILED_STEP = frozenset({"prepare_failed", "restore_failed", "unfit", "unready", "late", "host_fault"})
"""Outcomes of an award that never started whose Prepare or Start failed, or was not answered in time."""
PATIENCE = 1 / 3
"""The share of the answer window in which evidence is waited for: well before the provider would admit a drop."""
NEWCOMERS = "newcomers"
_HEARD_BY = frozenset({"gateway", "database"})
"""What must be up for a heartbeat to be heard: a store or a chain that is down silences nobody."""


class Blame(StrEnum):
    """HOST: it may answer for itself. OTHERS: the lease is cleared. OPEN: wait for more evidence."""

    HOST = "host"
    OTHERS = "others"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the marketplace's own rows say of an award that is over.

    ``step``: Prepare or Start, where it failed; empty where neither did. ``silent``: no heartbeat came for longer than
    the order allows. ``outages``: what was down in that time. ``failed_at``: where the accused is proven itself, the
    other proven providers at which the same step failed from the same inputs; ``worked_at``: those at which the job
    then ran, to a committed checkpoint. ``window_used``: the share of the answer window that went by, from 0 to 1.
    ``affordable``: see the last rule.
    """

    told: bool = True
    start_sent: bool = True
    step: str = ""
    silent: bool = False
    outages: frozenset[str] = frozenset()
    worked_at: frozenset[str] = frozenset()
    failed_at: frozenset[str] = frozenset()
    window_used: float = 0.0
    affordable: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who is to blame, and why in words for the job's history."""

    blame: Blame
    reason: str


def judge(evidence: Evidence) -> Verdict:
    """The verdict on one suspended lease."""
    blame, reason = _judge(evidence)
    return Verdict(blame, reason)


def _judge(it: Evidence) -> tuple[Blame, str]:
    if not it.told:
        return Blame.OTHERS, "the node was told nothing"
    outages = it.outages & _HEARD_BY if it.silent else it.outages
    if outages:
        return Blame.OTHERS, f"{' and '.join(sorted(outages))} was down meanwhile"
    if not it.start_sent and not it.step:
        return Blame.OTHERS, "the node was never sent its Start"
    if it.silent:
        return Blame.HOST, "the node's heartbeats stopped"
    if not it.step:
        return Blame.OTHERS, "the node was heard to the end"
    if it.worked_at:
        return Blame.HOST, f"{it.step} worked at another provider from the same inputs"
    if it.window_used >= PATIENCE and it.failed_at:
        return Blame.OTHERS, f"{it.step} failed at two unrelated providers from the same inputs"
    if it.window_used >= PATIENCE and it.affordable:
        return Blame.OTHERS, f"nothing shows why {it.step} failed"
    return Blame.OPEN, "no other provider has tried it yet"


def parties(providers: Iterable[str], proven: Iterable[str]) -> frozenset[str]:
    """Who counts as unrelated to whom: proven providers each by itself, all that never served together as one."""
    known = frozenset(proven)
    return frozenset(provider if provider in known else NEWCOMERS for provider in providers)
