"""Graceful moves: migrate and hibernate. Nothing is redone, and a failure leaves the job running where it is."""

from everlease.domain.job import JobEvent
from everlease.domain.snapshot import Auction, Award
from recovery.moves import CloseAuction, GiveAward, IssueCommand, NoteAward
from recovery.planner.bidding import BID_SLACK_S, bids_wait, call_for_bids, nobody, undecided, winner_of
from recovery.planner.draft import Draft
from recovery.planner.hosts import idle_too_long
from recovery.planner.leases import watch_lease
from recovery.planner.pay import held
from recovery.planner.placing import prepare_payload
from recovery.planner.running import exited, hold, holding, no_further_lease, thaw, unstored

_CLOSED_FOR_GOOD = ("nobody", "abandoned", "moved")


def migrating(draft: Draft) -> None:
    """MIGRATING: auction, preparation, held checkpoint, award; in that order, so the pause is as short as it can be."""
    award = draft.snapshot.award
    if award is None:
        draft.abandon_auction("the award is gone")
        draft.event(JobEvent.VOIDED, "the award is gone")
        return
    auction = draft.snapshot.auction
    purpose = _migration(auction) if auction is not None else ""
    if watch_lease(draft, award) or _ended(draft, award, JobEvent.MIGRATE_ABANDONED, purpose):
        return
    if auction is None or auction.plan != "migration" or auction.outcome.startswith(_CLOSED_FOR_GOOD):
        why = no_further_lease(draft)
        if why:
            draft.event(JobEvent.MIGRATE_ABANDONED, why)
        else:
            draft.add(call_for_bids(draft, "migration", {award.node: "the job runs on this node already"}))
    elif auction.closed_at is None:
        _decide(draft, auction)
    else:
        _move(draft, award, auction)


def hibernating(draft: Draft) -> None:
    """HIBERNATING: a last checkpoint that stays frozen until it is durable, then the lease is closed."""
    award = draft.snapshot.award
    if award is None:
        draft.event(JobEvent.HIBERNATED)
        return
    purpose = f"hibernate-{award.hibernations}"
    if watch_lease(draft, award) or _ended(draft, award, JobEvent.HIBERNATE_ABANDONED, purpose):
        return
    answer = hold(draft, award, purpose)
    if answer is None:
        return
    if held(draft.snapshot, award, answer):
        draft.end(award, "hibernated")
        draft.event(JobEvent.HIBERNATED)
    else:
        thaw(draft, award, purpose)
        draft.event(JobEvent.HIBERNATE_ABANDONED, answer.error or "the last checkpoint was not committed")


def _ended(draft: Draft, award: Award, abandoned: JobEvent, purpose: str) -> bool:
    """An exit ends the move: the job succeeded, or RUNNING deals with its failure, or with that of an idle host.

    A job that was asked to be held stands still for that: the answer decides, however late it is read.
    """
    why = unstored(draft, award)
    if award.exit_code == 0 and not award.host_fault and not why:
        draft.abandon_auction("the job ended")
        return exited(draft, award)
    why = why or award.host_fault or (f"the job ended with exit code {award.exit_code}" if award.exit_code else "")
    if not why and not holding(draft, award, purpose):
        why = idle_too_long(draft, award)
    if why:
        draft.abandon_auction(why)
        draft.event(abandoned, why)
    return bool(why)


def _migration(auction: Auction) -> str:
    return f"migrate-{auction.id}"


def _decide(draft: Draft, auction: Auction) -> None:
    if undecided(draft, auction):
        return
    winner = winner_of(draft, auction)
    if winner is None and bids_wait(draft, auction):
        return
    if winner is None:
        reason = nobody(auction, len(draft.snapshot.offers))
        draft.add(CloseAuction(auction.id, f"nobody: {reason}"))
        draft.event(JobEvent.MIGRATE_ABANDONED, reason)
    else:
        draft.add(CloseAuction(auction.id, "won", winner))


def _move(draft: Draft, award: Award, auction: Auction) -> None:
    snapshot = draft.snapshot
    winner = auction.winner
    step = f"preload/{auction.id}"
    preload = snapshot.command(step)
    if preload is None:
        payload = prepare_payload(snapshot, snapshot.job.head_manifest)
        timeout = draft.policy.prepare_timeout_s
        draft.add(IssueCommand(winner["node"], award.fence, step, "prepare", payload, timeout))
        return
    if preload.ok is None and winner["node"] not in snapshot.gone_nodes:
        return
    if not preload.ok:
        _abandon(draft, preload.error or "the new host was lost while it prepared")
        return
    purpose = _migration(auction)
    left_s = winner["bid"]["deadline"] - draft.now - BID_SLACK_S
    if not holding(draft, award, purpose):
        # Before the job stands still for a move that can't come off.
        late = left_s < draft.policy.checkpoint_timeout_s
        why = snapshot.winner_unfit or ("the bid expires before the job could be held" if late else "")
        if why:
            _abandon(draft, why)
            return
    answer = hold(draft, award, purpose)
    if answer is None:
        return
    why = answer.error or ("" if held(snapshot, award, answer) else "nothing was committed") or snapshot.winner_unfit
    why = why or ("the bid expires before the lease could be opened" if left_s < draft.policy.pending_open_s else "")
    if why:
        thaw(draft, award, purpose)
        _abandon(draft, why)
        return
    draft.add(NoteAward(award.fence, {"held_at": answer.finished_at}))
    draft.end(award, "migrated")
    draft.add(CloseAuction(auction.id, "moved", winner), GiveAward(**winner, settle="close"))
    told = {"node": winner["node"], "rate_per_hour": winner["rate_per_hour"], "epoch": auction.epoch}
    draft.event(JobEvent.AWARDED, fence=award.fence + 1, from_node=award.node, **told)


def _abandon(draft: Draft, reason: str) -> None:
    draft.abandon_auction(reason)
    draft.event(JobEvent.MIGRATE_ABANDONED, reason)
