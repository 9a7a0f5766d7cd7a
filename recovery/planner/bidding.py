"""The auction: when to call for bids, on what terms, and who wins."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from itertools import takewhile
from typing import Any, Literal

from everlease.domain.auction import LONGEST_BID_S, AuctionTerms, run_auction
from everlease.domain.job import JobEvent
from everlease.domain.jobspec import CheckpointMode
from everlease.domain.snapshot import Auction, Award, Snapshot
from recovery.moves import CloseAuction, GiveAward, MarkDamaged, OpenAuction, SettleHow
from recovery.planner.draft import Draft
from recovery.planner.funds import available, required
from recovery.planner.hosts import UNREADY, kept_out, let_in_at
from recovery.planner.leases import how_to_settle, left_over, silent_from

CLOCKS_APART_S = 600
"""How far a node's clock may be behind ours before it takes a call for one that binds it too long."""
BID_SLACK_S = 5
"""A bid that expires sooner could not be opened in time."""
_OTHERS_FIRST = {
    "prepare_failed": "the job's preparation failed on a host of this provider: others are asked first",
    "unready": "a host of this provider could not prepare or restore the job for now: others are asked first",
    "restore_failed": "a host of this provider failed to restore a checkpoint: others are asked first",
    "open_failed": "a lease with this provider could not be opened: others are asked first",
    "late": "a host of this provider was late with the job: others are asked first",
    "host_fault": "a host of this provider failed the job: others are asked first",
    "stopped": "a host of this provider stopped while it had the job: others are asked first",
    "left": "a host of this provider stopped while it had the job: others are asked first",
}
"""Outcomes that keep a provider out until an auction finds nobody else, and what its nodes are told."""
_LASTING = {
    "moved": "the job already failed on this node",
    "restore_failed": "this node failed to restore this checkpoint",
    "unfit": "this checkpoint can't live on this node",
}
"""Outcomes that keep a node out: of the job, or of restores of the same checkpoint."""


def auctioning(draft: Draft) -> None:
    """AUCTIONING: decide the open auction, or open one if the job can go on at all."""
    snapshot = draft.snapshot
    auction = snapshot.auction
    if auction is not None and auction.closed_at is None:
        _decide(draft, auction)
        return
    if snapshot.escrow is None:
        draft.wait_until(draft.now + draft.policy.reorg_grace_s)
        return
    why = out_of_terms(draft)
    if why is None and available(snapshot, draft.now) < required(snapshot, 0, draft.policy):
        why = "the escrow can't pay for another lease: top it up"
    if why is not None:
        draft.event(JobEvent.FUNDS_OUT, why)
        return
    if hopeless(draft) or _damaged(draft) or _open_pending(draft) or _out_of_reach(draft):
        return
    draft.add(call_for_bids(draft))


def hopeless(draft: Draft) -> bool:
    """Give up a job that was recovered too often, makes no progress, or that several providers could not start."""
    job, policy = draft.snapshot.job, draft.policy
    refusing = {award.provider for award in _since_started(draft.snapshot, {"prepare_failed"})}
    if job.recoveries > job.spec.max_recoveries:
        draft.give_up(f"the job was recovered {job.spec.max_recoveries} times, as often as its order allows")
    elif job.barren_recoveries >= policy.max_barren:
        draft.give_up(f"the job made no progress over {job.barren_recoveries} recoveries")
    elif len(refusing) >= policy.max_refused_starts:
        draft.give_up(f"no node could start the job: {job.reason}")
    else:
        return False
    return True


def out_of_terms(draft: Draft) -> str | None:
    """Why the order allows no further lease, or None. ``extend`` on chain changes all of them but a cancellation."""
    escrow = draft.snapshot.escrow
    if escrow is None:
        return None
    if escrow.cancelled:
        return "the tenant cancelled the order on chain"
    if draft.now + draft.policy.margin_s + 1 >= escrow.deadline:
        return "the order's deadline has come: extend it"
    if escrow.epochs >= escrow.max_epochs:
        return f"all {escrow.max_epochs} leases of the order are used up: extend it"
    return None


def call_for_bids(draft: Draft, plan: str | None = None, excluded: Mapping[str, str] | None = None) -> OpenAuction:
    """The next call for bids: on the next epoch, without the nodes and providers that failed this job."""
    snapshot = draft.snapshot
    plan = plan or _plan(snapshot)
    windows = {"first": draft.policy.auction_window_s, "migration": draft.policy.migration_window_s}
    epochs = snapshot.escrow.epochs if snapshot.escrow else 0
    return OpenAuction(
        epoch=epochs + 1,
        plan=plan,
        mode=_mode(draft, plan),
        window_s=windows.get(plan, draft.policy.recovery_window_s),
        bids_until=_bids_until(draft, plan),
        excluded={**_excluded(draft), **(excluded or {})},
    )


def _bids_until(draft: Draft, plan: str) -> int:
    """When the winner's lease is opened at the latest: a migration prepares and holds the job first, and a lost node's
    lease must fall silent.
    """
    policy, lease = draft.policy, left_over(draft.snapshot)
    at = draft.now
    if plan == "migration":
        at += policy.migration_window_s + policy.patience_s + policy.prepare_timeout_s + policy.checkpoint_timeout_s
    elif lease is not None and settle_with_open(draft.snapshot) == "suspend":
        at = max(at, silent_from(draft.snapshot, lease))
    return int(min(at + policy.open_timeout_s, draft.now + LONGEST_BID_S - CLOCKS_APART_S))


def award_terms(snapshot: Snapshot, auction: Auction, now: float) -> AuctionTerms:
    """What the bids of this auction are judged by."""
    order = snapshot.job.order
    maximum = snapshot.escrow.max_rate_per_hour if snapshot.escrow else order.max_rate_per_hour
    return AuctionTerms(
        order_hash=snapshot.job.id,
        epoch=auction.epoch,
        max_rate_per_hour=maximum,
        min_collateral=order.min_collateral,
        bids_until=max(auction.bids_until, int(now) + BID_SLACK_S),
        excluded=auction.excluded,
    )


def undecided(draft: Draft, auction: Auction) -> bool:
    """Whether to wait on: until all whom it waits for have answered, else until the window's end.

    An answer of any other node hastens nothing. With no bid by then it waits a little longer for a gateway or a node
    that is slow: better late than nobody.
    """
    offers = draft.snapshot.offers
    if auction.asked and auction.asked <= {signed.offer.bid.node for signed in offers} | auction.declined:
        return False
    end = auction.closes_at
    if draft.now >= end and not offers:
        end += draft.policy.patience_s
    if draft.now < end:
        draft.wait_until(end)
    return draft.now < end


def winner_of(draft: Draft, auction: Auction) -> dict[str, Any] | None:
    """The winning bid as the fields of GiveAward, or None where no bid is acceptable."""
    award = run_auction(
        (signed.offer for signed in draft.snapshot.offers), award_terms(draft.snapshot, auction, draft.now)
    )
    if award is None:
        return None
    bid = award.offer.bid
    signature = next(signed.signature for signed in draft.snapshot.offers if signed.offer is award.offer)
    return {
        "auction_id": auction.id,
        "epoch": auction.epoch,
        "node": bid.node,
        "provider": bid.provider,
        "bid": asdict(bid),
        "signature": signature,
        "rate_per_hour": award.rate_per_hour,
        "mode": auction.mode,
        "mtbf_s": float(award.offer.mtbf_s),
    }


def nobody(auction: Auction, offers: int) -> str:
    """Why the auction had no winner, for people."""
    if offers:
        return "no bid was acceptable"
    reasons = sorted({str(reason) for reason in auction.unfit.values()})
    if reasons:
        return "no node took the job: " + "; ".join(reasons[:3])
    return "no node is connected that could take the job"


def _decide(draft: Draft, auction: Auction) -> None:
    snapshot = draft.snapshot
    if undecided(draft, auction):
        return
    winner = winner_of(draft, auction)
    if winner is None:
        reason = nobody(auction, len(snapshot.offers))
        draft.add(CloseAuction(auction.id, f"nobody: {reason}"))
        draft.event(JobEvent.NOBODY_BID, reason)
        return
    if available(snapshot, draft.now) < required(snapshot, winner["rate_per_hour"], draft.policy):
        draft.add(CloseAuction(auction.id, "the escrow can't pay the winner"))
        draft.event(JobEvent.FUNDS_OUT, "the escrow can't pay another minimum runtime: top it up")
        return
    draft.add(CloseAuction(auction.id, "awarded", winner), GiveAward(**winner, settle=settle_with_open(snapshot)))
    told = {"node": winner["node"], "rate_per_hour": winner["rate_per_hour"], "epoch": auction.epoch}
    draft.event(JobEvent.AWARDED, fence=snapshot.job.fence + 1, **told)


def settle_with_open(snapshot: Snapshot) -> SettleHow | Literal[""]:
    """What ends the lease before, in the transaction that opens the next."""
    lease = left_over(snapshot)
    award = snapshot.award_of(lease.lease_id) if lease is not None else None
    return how_to_settle(award) if award is not None else ""


def _since_started(snapshot: Snapshot, outcomes: Collection[str]) -> list[Award]:
    found: list[Award] = []
    for award in reversed(snapshot.awards):
        if award.outcome in outcomes:
            found.append(award)
        if award.started_at is not None:
            break
    return found


def _plan(snapshot: Snapshot) -> str:
    ended = [award for award in snapshot.awards if award.started_at is not None]
    if not ended:
        return "first"
    return "resume" if ended[-1].outcome in {"hibernated", "exhausted"} else "recovery"


def _excluded(draft: Draft) -> dict[str, str]:
    """Nodes where the workload or a restore failed stay out. Providers whose hosts were late or could not get it going
    are let in after a dry auction; those whose hosts failed the job after a while at the soonest.
    """
    snapshot = draft.snapshot
    out: dict[str, str] = {}
    if not dry_auctions(snapshot):
        out |= {award.provider: _OTHERS_FIRST[award.outcome] for award in _since_started(snapshot, _OTHERS_FIRST)}
    return out | kept_out(draft) | _for_good(snapshot)


def _for_good(snapshot: Snapshot) -> dict[str, str]:
    head = snapshot.job.head_manifest
    return {
        award.node: _LASTING[award.outcome]
        for award in snapshot.awards
        if award.outcome in _LASTING and (award.outcome == "moved" or award.restore_manifest == head)
    }


def let_in_soon(draft: Draft) -> bool:
    """Whether the last auction was dry and asked others alone: those it left out are worth another at once."""
    waiting = kept_out(draft)
    left_out = (award.provider for award in _since_started(draft.snapshot, _OTHERS_FIRST))
    return len(dry_auctions(draft.snapshot)) == 1 and any(provider not in waiting for provider in left_out)


def dry_auctions(snapshot: Snapshot) -> list[Auction]:
    """The latest auctions, newest first, as far as nobody took the job in any of them. A migration's is none of them:
    then the job had a host.
    """
    return list(takewhile(_dry, reversed(snapshot.auctions)))


def begin_anew(draft: Draft) -> None:
    """The job comes back from elsewhere than a wait for capacity: what was dry before says nothing of the hosts now."""
    for auction in dry_auctions(draft.snapshot)[:1]:
        draft.add(CloseAuction(auction.id, f"over: {auction.outcome}"))


def _dry(auction: Auction) -> bool:
    return auction.outcome.startswith("nobody") and auction.plan != "migration"


def _mode(draft: Draft, plan: str) -> str:
    """``process`` where it is allowed; by turns with ``files`` while nobody takes the job, if the order allows that.

    A turn lasts ``capacity_wait_s`` from its first dry auction on, however many there are: nodes' news may call for one
    at any time.
    """
    snapshot = draft.snapshot
    policy = snapshot.job.spec.checkpoint
    head = snapshot.head
    if policy.mode in (CheckpointMode.FILES, CheckpointMode.NONE) or (head is not None and head.mode == "files"):
        return "files"
    if any(award.undumpable and award.started_at is not None for award in snapshot.awards):
        return "files"
    dry = dry_auctions(snapshot)
    if not dry or plan == "migration" or not (policy.mode is CheckpointMode.AUTO and policy.fall_back_to_files):
        return "process"
    mode = dry[0].mode
    *_, first = takewhile(lambda auction: auction.mode == mode, dry)
    if draft.now < (first.closed_at or draft.now) + draft.policy.capacity_wait_s:
        return mode
    return "files" if mode == "process" else "process"


def _damaged(draft: Draft) -> bool:
    """A head that hosts of two providers failed to restore gives way to its predecessor, once; then FAILED. Before that
    everybody else has been asked.

    One provider's word that a block is damaged is enough where nobody else is there to try, its own other hosts
    included: another may hold the block in its cache. It costs that one checkpoint; to give up more, or the job, takes
    a second provider. Until one comes the job waits.

    A host that calls a restore worth another try (its disk is full, its agent has a fault) has not failed it, and waits
    longer each time. But a checkpoint that crashes every agent is not kept for ever: a provider whose hosts said that
    ``max_restore_tries`` times counts as one that failed it.
    """
    snapshot = draft.snapshot
    failed = [award for award in _since_started(snapshot, {"restore_failed", UNREADY}) if _restored(award)]
    of_head = [award for award in failed if award.restore_manifest == snapshot.job.head_manifest]
    providers = {award.provider for award in of_head if award.outcome != UNREADY}
    providers |= _often(of_head, draft.policy.max_restore_tries)
    if _others_left(draft, providers):
        return False
    several = len(providers) > 1
    if not several and not any(_corrupt(snapshot, award) for award in of_head if _found_nobody(draft, award.provider)):
        return False
    head = snapshot.head
    seqs = {point.manifest: point for point in snapshot.checkpoints if not point.damaged}
    before = seqs.get(head.predecessor or "") if head is not None else None
    if head is not None and before is not None and len(of_head) == len(failed):
        draft.add(MarkDamaged(head.seq, _last_error(snapshot, of_head[0]), before.seq, before.manifest))
    elif several:
        draft.give_up(f"the checkpoint can't be restored: {_last_error(snapshot, of_head[0])}")
    return bool(draft.moves)


def _others_left(draft: Draft, failed: Collection[str]) -> bool:
    """Whether somebody may be there to restore the head but these providers: no auction since was dry, or the last that
    was left others out.

    Nobody keeps a checkpoint waiting for ever: a provider that had it ``max_restore_tries`` times has had its chance.
    """
    snapshot = draft.snapshot
    dry = dry_auctions(snapshot)
    if not dry:
        return True
    owners = {award.node: award.provider for award in snapshot.awards}
    tried = [award for award in snapshot.awards if award.restore_manifest == snapshot.job.head_manifest]
    done = _often(tried, draft.policy.max_restore_tries).union(failed)
    left_out = dry[0].excluded.keys() - _for_good(snapshot)
    return any(owners.get(address, address) not in done for address in left_out)


def _often(awards: Collection[Award], times: int) -> set[str]:
    """Providers with that many of these awards."""
    return {provider for provider, count in Counter(award.provider for award in awards).items() if count >= times}


def _restored(award: Award) -> bool:
    """Whether its node was told to restore a checkpoint, not only to prepare that."""
    return award.restore_manifest is not None and award.start_sent_at is not None


def _found_nobody(draft: Draft, provider: str) -> bool:
    """Whether the last auction was dry though it asked this provider, too."""
    dry = dry_auctions(draft.snapshot)
    return len(dry) > 1 and dry[0].opened_at >= let_in_at(draft).get(provider, 0.0)


def _corrupt(snapshot: Snapshot, award: Award) -> bool:
    answer = snapshot.command(f"start/{award.fence}")
    return answer is not None and bool(answer.result.get("damaged"))


def _last_error(snapshot: Snapshot, award: Award) -> str:
    answer = snapshot.command(f"start/{award.fence}")
    return answer.error if answer is not None and answer.error else "the node gave no reason"


def _out_of_reach(draft: Draft) -> bool:
    """No node binds itself as long as a lost host's lease must stay silent: bids are asked for as soon as one could."""
    lease = left_over(draft.snapshot)
    if lease is None or settle_with_open(draft.snapshot) != "suspend":
        return False
    within = LONGEST_BID_S - CLOCKS_APART_S - draft.policy.open_timeout_s
    at = silent_from(draft.snapshot, lease) - within
    if draft.now < at:
        draft.wait_until(at)
    return draft.now < at


def _open_pending(draft: Draft) -> bool:
    """An ``open`` of an award that ended may still be mined and take the epoch: wait for it a little."""
    for award in draft.snapshot.awards[-3:]:
        txs = draft.snapshot.open_txs(award)
        pending = bool(txs) and txs[-1].state in {"journaled", "sent", "dropped"}
        until = (award.ended_at or draft.now) + draft.policy.pending_open_s
        if pending and not award.current and draft.now < until:
            draft.wait_until(min(until, draft.now + 1))
            return True
    return False
