"""The auction: when to call for bids, on what terms, and who wins."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import takewhile
from typing import Any, Literal

from everlease.domain.auction import LONGEST_BID_S, AuctionTerms, Offer, above_reserve, refusal, run_auction
from everlease.domain.job import JobEvent
from everlease.domain.jobspec import CheckpointMode
from everlease.domain.money import from_units
from everlease.domain.snapshot import Auction, Snapshot
from recovery.moves import CloseAuction, GiveAward, OpenAuction, SettleHow
from recovery.planner.backoff import held_back
from recovery.planner.damage import damaged, set_aside, unclaimed
from recovery.planner.draft import Draft
from recovery.planner.funds import available, required
from recovery.planner.history import dry_auctions, for_good, since_resumed, since_started
from recovery.planner.hosts import GAVE_NOTICE, UNSENT, UNSTORED, kept_out
from recovery.planner.leases import left_over
from recovery.planner.pricing import cap, last_lease, order_maximum, rise_s, round_of, wait_for_rise
from recovery.planner.settling import how_to_settle, silent_from
from recovery.planner.verdict import MOVED, UNDUMPABLE, judged, undumpable_everywhere

CLOCKS_APART_S = 600
"""How far a node's clock may be behind ours before it takes a call for one that binds it too long."""
BID_SLACK_S = 5
"""A bid that expires sooner could not be opened in time."""
_OTHERS_FIRST = {
    "prepare_failed": "the job's preparation failed on a host of this provider: others are asked first",
    "unfit": "a host of this provider could not hold the checkpoint: others are asked first",
    "unready": "a host of this provider could not prepare or restore the job for now: others are asked first",
    "restore_failed": "a host of this provider failed to restore a checkpoint: others are asked first",
    "open_failed": "a lease with this provider could not be opened: others are asked first",
    UNSENT: "the job could not be handed to a host of this provider: others are asked first",
    MOVED: "the program failed on a host of this provider: others are asked first",
    UNDUMPABLE: "a host of this provider could not checkpoint the job: others are asked first",
    UNSTORED: "a host of this provider could not store the job's outputs: others are asked first",
    "late": "a host of this provider was late with the job: others are asked first",
    GAVE_NOTICE: "this provider gave notice while it had the job: others are asked first",
    "host_fault": "a host of this provider failed the job: others are asked first",
    "stopped": "a host of this provider stopped while it had the job: others are asked first",
    "left": "a host of this provider stopped while it had the job: others are asked first",
}
"""Outcomes that keep a provider out until an auction finds nobody else, and what its nodes are told."""
PROVEN_FIRST = 3
"""Rounds of an auction in which a job that had bad luck waits for proven providers whose bids are above the reserve."""
_GRACEFUL = frozenset({"", "migrated", "hibernated", "exhausted"})
"""Of an award that goes on, or ended because it was to."""


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
    if judged(draft) or set_aside(draft) or damaged(draft) or unclaimed(draft):
        return
    if _open_pending(draft) or _out_of_reach(draft):
        return
    waits = held_back(draft)
    if waits is not None:
        draft.event(JobEvent.HELD_BACK, waits.reason)
        return
    draft.add(call_for_bids(draft))


def out_of_terms(draft: Draft) -> str | None:
    """Why the order allows no further lease, or None. ``extend`` on chain changes all but cancellation and fee."""
    escrow = draft.snapshot.escrow
    if escrow is None:
        return None
    if escrow.cancelled:
        return "the tenant cancelled the order on chain"
    if escrow.epoch_fee < draft.policy.min_epoch_fee:
        least = from_units(draft.policy.min_epoch_fee)
        return (
            f"the order pays less for a lease than this marketplace asks for ({least}), and that can't be raised: take "
            "what is left back with 'everlease job refund' and launch the job anew"
        )
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
        maximum=order_maximum(snapshot),
        rise_s=rise_s(draft.policy, plan),
        last=last_lease(snapshot) if plan == "recovery" else None,
        excluded={**_excluded(draft), **(excluded or {})},
    )


def _bids_until(draft: Draft, plan: str) -> int:
    """When the winner's lease is opened at the latest: a migration prepares and holds the job first, and a lost node's
    lease must fall silent.
    """
    policy, lease = draft.policy, left_over(draft.snapshot)
    at = draft.now + rise_s(draft.policy, plan)
    if plan == "migration":
        at += policy.migration_window_s + policy.patience_s + policy.prepare_timeout_s + policy.checkpoint_timeout_s
    elif lease is not None and settle_with_open(draft.snapshot, draft.now) == "suspend":
        at = max(at, silent_from(draft.snapshot, lease))
    return int(min(at + policy.open_timeout_s, draft.now + LONGEST_BID_S - CLOCKS_APART_S))


def award_terms(snapshot: Snapshot, auction: Auction, now: float) -> AuctionTerms:
    """What the bids of this auction are judged by."""
    order = snapshot.job.order
    return AuctionTerms(
        order_hash=snapshot.job.id,
        epoch=auction.epoch,
        max_rate_per_hour=order_maximum(snapshot),
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
    """The winning bid as the fields of GiveAward, or None where no bid is acceptable in this round."""
    terms = award_terms(draft.snapshot, auction, draft.now)
    award = run_auction(_contenders(draft.snapshot, auction, terms), terms, cap(auction))
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
        "priced_by_rivals": award.priced_by_rivals(draft.snapshot.job.order.tenant.lower()),
    }


def bids_wait(draft: Draft, auction: Auction) -> bool:
    """Whether bids without a winner wait for the next round, in which the reserve is higher."""
    terms = award_terms(draft.snapshot, auction, draft.now)
    return wait_for_rise(draft, auction, _contenders(draft.snapshot, auction, terms), terms)


def _contenders(snapshot: Snapshot, auction: Auction, terms: AuctionTerms) -> list[Offer]:
    """The offers that may win: in a recovery, and after an award that came to nothing, those of proven providers at or
    below the round's reserve; for ``PROVEN_FIRST`` rounds those above it are waited for.

    A job that had bad luck isn't for strangers to try themselves on; they have it where no proven provider bids, or all
    that do ask for more.
    """
    offers = [signed.offer for signed in snapshot.offers]
    if not any(award.outcome not in _GRACEFUL for award in since_resumed(snapshot)[-1:]):
        return offers
    known = [o for o in offers if o.bid.provider in snapshot.proven and refusal(o, terms) is None]
    if round_of(auction) >= PROVEN_FIRST:
        above = above_reserve(known, terms, cap(auction))
        known = [o for o in known if o not in above]
    return known or offers


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
    if winner is None and bids_wait(draft, auction):
        return
    if winner is None:
        reason = nobody(auction, len(snapshot.offers))
        draft.add(CloseAuction(auction.id, f"nobody: {reason}"))
        draft.event(JobEvent.NOBODY_BID, reason)
        return
    if available(snapshot, draft.now) < required(snapshot, winner["rate_per_hour"], draft.policy):
        draft.add(CloseAuction(auction.id, "the escrow can't pay the winner"))
        draft.event(JobEvent.FUNDS_OUT, "the escrow can't pay another minimum runtime: top it up")
        return
    draft.add(
        CloseAuction(auction.id, "awarded", winner), GiveAward(**winner, settle=settle_with_open(snapshot, draft.now))
    )
    told = {"node": winner["node"], "rate_per_hour": winner["rate_per_hour"], "epoch": auction.epoch}
    draft.event(JobEvent.AWARDED, fence=snapshot.job.fence + 1, **told)


def settle_with_open(snapshot: Snapshot, now: float) -> SettleHow | Literal[""]:
    """What ends the lease before, in the transaction that opens the next."""
    lease = left_over(snapshot)
    award = snapshot.award_of(lease.lease_id) if lease is not None else None
    return how_to_settle(snapshot, award, now) if award is not None else ""


def _plan(snapshot: Snapshot) -> str:
    ended = [award for award in snapshot.awards if award.started_at is not None]
    if not ended:
        return "first"
    resumed = ended[-1].fence <= snapshot.job.resumed_fence or ended[-1].outcome in {"hibernated", "exhausted"}
    return "resume" if resumed else "recovery"


def _excluded(draft: Draft) -> dict[str, str]:
    """Providers whose hosts were late or could not get it going are let in after a dry auction; those whose hosts
    failed the job after a while at the soonest. Nobody stays out for ever but nodes that can't hold the checkpoint.
    """
    snapshot = draft.snapshot
    out: dict[str, str] = {}
    if not dry_auctions(snapshot):
        out |= {award.provider: _OTHERS_FIRST[award.outcome] for award in since_started(snapshot, _OTHERS_FIRST)}
    return out | kept_out(draft) | for_good(snapshot)


def let_in_soon(draft: Draft) -> bool:
    """Whether the last auction was dry and asked others alone: those it left out are worth another at once."""
    waiting = kept_out(draft)
    left_out = (award.provider for award in since_started(draft.snapshot, _OTHERS_FIRST))
    return len(dry_auctions(draft.snapshot)) == 1 and any(provider not in waiting for provider in left_out)


def _mode(draft: Draft, plan: str) -> str:
    """``process`` where it is allowed, and always where the order insists on it; by turns with ``files`` while nobody
    takes the job, if the order allows that.

    A turn lasts ``capacity_wait_s`` from its first dry auction on, however many there are: nodes' news may call for one
    at any time.
    """
    snapshot = draft.snapshot
    policy = snapshot.job.spec.checkpoint
    if policy.mode in (CheckpointMode.FILES, CheckpointMode.NONE):
        return "files"
    if policy.fall_back_to_files and undumpable_everywhere(draft):
        return "files"
    dry = dry_auctions(snapshot)
    if not dry or plan == "migration" or not (policy.mode is CheckpointMode.AUTO and policy.fall_back_to_files):
        return "process"
    mode = dry[0].mode
    *_, first = takewhile(lambda auction: auction.mode == mode, dry)
    if draft.now < (first.closed_at or draft.now) + draft.policy.capacity_wait_s:
        return mode
    return "files" if mode == "process" else "process"


def _out_of_reach(draft: Draft) -> bool:
    """No node binds itself as long as a lost host's lease must stay silent: bids are asked for as soon as one could."""
    lease = left_over(draft.snapshot)
    if lease is None or settle_with_open(draft.snapshot, draft.now) != "suspend":
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
