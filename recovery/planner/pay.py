"""Which leases are paid to their end, and which to their last checkpoint, where the order pays for saved work alone.

How much unsaved work "to their end" may cover is bounded by everlease.domain.earning.
"""

from everlease.domain.snapshot import Award, Command, Snapshot

_WITH_ITS_HOST = frozenset({"lost", "host_fault", "left", "unstored", "undumpable", "gave_notice"})
"""Outcomes by which the work since the last checkpoint went with the host."""


def paid_in_full(snapshot: Snapshot, award: Award, outcome: str) -> bool:
    """Whether a lease whose award ends so is paid to its end, and not only for what was saved.

    A job that finished is, once its outputs are in; a host that stopped is, where it left the job with its checkpoint;
    one whose job ran out of money or time, where it made the last checkpoint. The rest of the orderly ends, and the
    program's own exits, are never the host's loss.
    """
    head = snapshot.head
    own = head if head is not None and head.fence == award.fence else None
    if outcome == "finished":
        return own is not None and own.final
    if outcome == "stopped":
        word = award.goodbye
        return word is not None and word.still and own is not None and own.manifest == word.head
    if outcome == "exhausted":
        answer = snapshot.command(f"hold/funds/{award.fence}")
        return answer is not None and held(snapshot, award, answer)
    return outcome not in _WITH_ITS_HOST


def held(snapshot: Snapshot, award: Award, answer: Command) -> bool:
    """Whether the held checkpoint is durable: its commit is the job's head, made under this award's fence. Outputs are
    no checkpoint to go on from.
    """
    head = snapshot.head
    manifest = answer.result.get("manifest")
    if not answer.ok or head is None or head.final or head.fence != award.fence:
        return False
    return manifest is None or manifest == head.manifest
