"""Which leases are paid to their end, and which to their last checkpoint, where the order pays for saved work alone."""

from everlease.domain.snapshot import Award, Snapshot

_WITH_ITS_HOST = frozenset({"lost", "host_fault", "left", "unstored", "undumpable", "gave_notice"})
"""Outcomes by which the work since the last checkpoint went with the host."""


def paid_in_full(snapshot: Snapshot, award: Award, outcome: str) -> bool:
    """Whether a lease whose award ends so is paid for all that was served, and not only for what was saved.

    A job that finished is, once its outputs are in; a host that stopped is, where it left the job with its checkpoint.
    The rest of the orderly ends, and the program's own exits, are never the host's loss.
    """
    head = snapshot.head
    own = head if head is not None and head.fence == award.fence else None
    if outcome == "finished":
        return own is not None and own.final
    if outcome == "stopped":
        word = award.goodbye
        return word is not None and word.still and own is not None and own.manifest == word.head
    return outcome not in _WITH_ITS_HOST
