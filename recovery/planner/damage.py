"""Checkpoints that are given up for the one before: no host can restore the head, or none takes it."""

from collections.abc import Collection

from everlease.domain.snapshot import Award, Snapshot
from recovery.moves import RewindHead
from recovery.planner.draft import Draft
from recovery.planner.history import begin_anew, for_good, heard_auctions, often, since_started
from recovery.planner.hosts import UNREADY


def damaged(draft: Draft) -> bool:
    """A head that hosts of two providers failed to restore gives way to its predecessor, once; then to the newest of
    another provider than its author, again and again; the very first, before which there is nothing, to the beginning.
    Before that everybody else has been asked. What is left then is kept, and tried again later and later: no word of
    hosts ends the job, and what gave way on their word alone can be resumed from.

    One provider is enough where the marketplace found in the store what it says of a block: whoever still holds that in
    a cache has been asked.

    A host that calls a restore worth another try (its disk is full, its agent has a fault) has not failed it, and waits
    longer each time. But a checkpoint that crashes every agent is not kept for ever: a provider whose hosts said that
    ``max_restore_tries`` times counts as one that failed it.
    """
    snapshot = draft.snapshot
    failed = [award for award in since_started(snapshot, {"restore_failed", UNREADY}) if _restored(award)]
    of_head = [award for award in failed if award.restore_manifest == snapshot.job.head_manifest]
    providers = {award.provider for award in of_head if award.outcome != UNREADY}
    providers |= often(of_head, draft.policy.max_restore_tries)
    if _others_left(draft, providers):
        return False
    corrupt = any(_corrupt(snapshot, award) for award in of_head)
    if len(providers) < 2 and not corrupt:
        return False
    head = snapshot.head
    if head is None:
        return False
    seqs = {point.manifest: point for point in snapshot.checkpoints}
    before, other = seqs.get(head.predecessor or ""), snapshot.other
    error = _last_error(snapshot, of_head[0])
    if before is not None and (corrupt or len(of_head) == len(failed)):
        draft.add(RewindHead(error, before.seq, before.manifest, corrupt))
    elif other is not None:
        draft.add(RewindHead(error, other.seq, other.manifest, corrupt))
        begin_anew(draft)
    elif head.predecessor is None and len(providers) >= 2:
        draft.add(RewindHead(error, corrupt=corrupt))
        begin_anew(draft)
    return bool(draft.moves)


def set_aside(draft: Draft) -> bool:
    """A final checkpoint of an end that nobody was told of gives way to the newest before it that holds the program, or
    to the beginning: the job has not ended, and what a host calls its outputs is no place to go on from.
    """
    unended = draft.snapshot.unended
    if unended is None:
        return False
    why, before = "its host never told that the job ended", unended.before
    draft.add(RewindHead(why) if before is None else RewindHead(why, before.seq, before.manifest))
    return True


def unclaimed(draft: Draft) -> bool:
    """A head that nobody takes gives way to the newest checkpoint of the provider before that somebody could take.

    What a checkpoint needs follows from what its host said of itself, so a host could make one that nobody can restore.
    It is waited for as long as giving it up costs in work, and at least ``unmet_wait_s``, or ``untaken_wait_s`` where a
    connected host of another provider meets its needs.
    """
    head, reach = draft.snapshot.head, draft.snapshot.reach
    if head is None or reach is None:
        return False
    least = draft.policy.untaken_wait_s if reach.met else draft.policy.unmet_wait_s
    waited = draft.now - reach.since
    if waited < max(least, reach.lost_s):
        return False
    why = "nobody took" if reach.met else "no connected host could restore"
    reason = f"{why} checkpoint {head.seq} for {waited:.0f} s"
    draft.add(RewindHead(reason, reach.before.seq, reach.before.manifest))
    begin_anew(draft)
    return True


def _others_left(draft: Draft, failed: Collection[str]) -> bool:
    """Whether somebody may be there to restore the head but these providers: no auction since was dry, or the last that
    was left others out.

    Nobody keeps a checkpoint waiting for ever: a provider that had it ``max_restore_tries`` times has had its chance.
    """
    snapshot = draft.snapshot
    dry = heard_auctions(snapshot)
    if not dry:
        return True
    owners = {award.node: award.provider for award in snapshot.awards}
    since = (award for award in snapshot.awards if award.fence > snapshot.job.resumed_fence)
    tried = [award for award in since if award.restore_manifest == snapshot.job.head_manifest]
    done = often(tried, draft.policy.max_restore_tries).union(failed)
    left_out = dry[0].excluded.keys() - for_good(snapshot)
    return any(owners.get(address, address) not in done for address in left_out)


def _restored(award: Award) -> bool:
    """Whether its node was told to restore a checkpoint, not only to prepare that."""
    return award.restore_manifest is not None and award.start_sent_at is not None


def _corrupt(snapshot: Snapshot, award: Award) -> bool:
    """Whether its host named a damaged block, and the marketplace found the store's copy so."""
    answer = snapshot.command(f"start/{award.fence}")
    return answer is not None and bool(answer.result.get("damaged"))


def _last_error(snapshot: Snapshot, award: Award) -> str:
    answer = snapshot.command(f"start/{award.fence}")
    return answer.error if answer is not None and answer.error else "the node gave no reason"
