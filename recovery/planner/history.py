"""What a job's awards and auctions so far say of the hosts that it may have next."""

from collections import Counter
from collections.abc import Collection
from itertools import takewhile

from everlease.domain.snapshot import Auction, Award, Snapshot
from recovery.moves import CloseAuction
from recovery.planner.draft import Draft


def since_resumed(snapshot: Snapshot) -> list[Award]:
    """Awards since the tenant last let the job go on, oldest first: those before count no more."""
    return [award for award in snapshot.awards if award.fence > snapshot.job.resumed_fence]


def since_started(snapshot: Snapshot, outcomes: Collection[str]) -> list[Award]:
    """Awards that ended so since the job last started, the one that started included, or was resumed; newest first."""
    found: list[Award] = []
    for award in reversed(since_resumed(snapshot)):
        if award.outcome in outcomes:
            found.append(award)
        if award.started_at is not None:
            break
    return found


def for_good(snapshot: Snapshot) -> dict[str, str]:
    """Nodes that can't hold the job's head, and what they are told."""
    head = snapshot.job.head_manifest
    return {
        award.node: "this checkpoint can't live on this node"
        for award in since_resumed(snapshot)
        if award.outcome == "unfit" and award.restore_manifest == head
    }


def often(awards: Collection[Award], times: int) -> set[str]:
    """Providers with that many of these awards."""
    return {provider for provider, count in Counter(award.provider for award in awards).items() if count >= times}


def dry_auctions(snapshot: Snapshot) -> list[Auction]:
    """The latest auctions, newest first, as far as nobody took the job in any of them. A migration's is none of them:
    then the job had a host.
    """
    return list(takewhile(_dry, reversed(snapshot.auctions)))


def heard_auctions(snapshot: Snapshot) -> list[Auction]:
    """The dry auctions as far as a gateway asked nodes in each, or told why not: while the marketplace is away, or no
    node is there, the nodes have refused nothing.
    """
    return list(takewhile(lambda auction: auction.asked or auction.unfit, dry_auctions(snapshot)))


def begin_anew(draft: Draft) -> None:
    """The job comes back from elsewhere than a wait for capacity: what was dry before says nothing of the hosts now."""
    for auction in dry_auctions(draft.snapshot)[:1]:
        draft.add(CloseAuction(auction.id, f"over: {auction.outcome}"))


def _dry(auction: Auction) -> bool:
    return auction.outcome.startswith("nobody") and auction.plan != "migration"
