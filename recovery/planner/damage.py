"""Checkpoints that are given up for the one before: no host can restore the head, or none takes it."""

from collections.abc import Collection

from everlease.domain.snapshot import Award, Snapshot
from recovery.moves import MarkDamaged
from recovery.planner.draft import Draft
from recovery.planner.history import begin_anew, for_good, heard_auctions, often, since_started
from recovery.planner.hosts import UNREADY, let_in_at


def damaged(draft: Draft) -> bool:
    """A head that hosts of two providers failed to restore gives way to its predecessor, once; then to the newest of
    another provider than its author, again and again; then FAILED. Before that everybody else has been asked.

    One provider's word that a block is damaged is enough where nobody else is there to try, its own other hosts
    included: another may hold the block in its cache. It costs that one checkpoint; to give up more, or the job, takes
    a second provider. Until one comes the job waits.

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
    several = len(providers) > 1
    if not several and not any(_corrupt(snapshot, award) for award in of_head if _found_nobody(draft, award.provider)):
        return False
    head = snapshot.head
    seqs = {point.manifest: point for point in snapshot.checkpoints if not point.damaged}
    before = seqs.get(head.predecessor or "") if head is not None else None
    error = _last_error(snapshot, of_head[0])
    if head is not None and before is not None and len(of_head) == len(failed):
        draft.add(MarkDamaged(head.seq, error, before.seq, before.manifest))
    elif head is not None and snapshot.other is not None and several:
        draft.add(MarkDamaged(head.seq, error, snapshot.other.seq, snapshot.other.manifest))
        begin_anew(draft)
    elif several:
        draft.give_up(f"the checkpoint can't be restored: {error}")
    return bool(draft.moves)


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
    draft.add(MarkDamaged(head.seq, reason, reach.before.seq, reach.before.manifest))
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


def _found_nobody(draft: Draft, provider: str) -> bool:
    """Whether the last auction was dry though it asked this provider, too."""
    dry = heard_auctions(draft.snapshot)
    return len(dry) > 1 and dry[0].opened_at >= let_in_at(draft).get(provider, 0.0)


def _corrupt(snapshot: Snapshot, award: Award) -> bool:
    answer = snapshot.command(f"start/{award.fence}")
    return answer is not None and bool(answer.result.get("damaged"))


def _last_error(snapshot: Snapshot, award: Award) -> str:
    answer = snapshot.command(f"start/{award.fence}")
    return answer.error if answer is not None and answer.error else "the node gave no reason"
