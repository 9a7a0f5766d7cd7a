"""The market: what a client needs to sign an order, upload an image, and see who rents out machines."""

from fastapi import APIRouter

from everlease.db import queries
from everlease.domain.reserve import LEAST_PROVIDERS, ROUNDS, WINDOW_DAYS
from everlease.domain.silence import LEAST_SILENCE_S
from everlease.wire.http import MarketOut, NodeList, ReserveOut, StoreTokenOut
from marketplace.dependencies import CallerDep, PartsDep
from marketplace.pages import CursorQuery, Limit, decode_cursor, encode_cursor
from marketplace.services.presentation import node_out

router = APIRouter(prefix="/v1", tags=["market"])


@router.get("/market")
def market(parts: PartsDep) -> MarketOut:
    """Chain, contracts, watcher, suggested terms, how auctions are priced, and where the other services are."""
    settings, deployment = parts.settings, parts.deployment
    with parts.db.transaction() as tx:
        facts = queries.market_facts(tx)
    return MarketOut(
        chain_id=deployment.chain_id,
        escrow=deployment.escrow,
        staking=deployment.staking,
        asset=deployment.asset,
        watcher=settings.watcher.lower(),
        store_url=parts.store.url,
        explorer_url=settings.explorer_url,
        fence_after_s=settings.fence_after,
        heartbeat_every_s=settings.heartbeat_every,
        max_silence_bounds=(max(deployment.terms.min_silence, LEAST_SILENCE_S), deployment.terms.max_silence),
        suggested={
            "max_silence": settings.suggested_max_silence,
            "max_epochs": settings.suggested_max_epochs,
            "epoch_fee": settings.suggested_epoch_fee,
            "min_collateral": settings.suggested_min_collateral,
            "bond": deployment.terms.bond,
            "min_runtime": deployment.terms.min_runtime,
            "max_lifetime": deployment.terms.max_lifetime,
        },
        reserve=ReserveOut(
            posted_cpu=settings.posted_cpu_rate,
            posted_gib=settings.posted_gib_rate,
            posted_gpu=settings.posted_gpu_rate,
            rounds=ROUNDS,
            rise_s=settings.reserve_rise,
            rise_in_recovery_s=settings.reserve_rise_in_recovery,
            least_providers=LEAST_PROVIDERS,
            window_days=WINDOW_DAYS,
        ),
        nodes_alive=facts.nodes_alive,
        jobs_running=facts.jobs_running,
        jobs_total=facts.jobs_total,
    )


@router.get("/nodes")
def nodes(parts: PartsDep, cursor: CursorQuery = None, limit: Limit = 50) -> NodeList:
    """Nodes that ever connected: public facts, liveness and record."""
    after = decode_cursor(cursor, str)[0] if cursor is not None else None
    with parts.db.transaction() as tx:
        rows = queries.node_page(tx, after, limit + 1)
        providers = queries.providers(tx, [row.provider for row in rows])
    shown = rows[:limit]
    more = encode_cursor(shown[-1].address) if len(rows) > limit else None
    return NodeList(items=[node_out(row, providers.get(row.provider)) for row in shown], next_cursor=more)


@router.post("/store/tokens", tags=["store"])
def store_token(parts: PartsDep, caller: CallerDep) -> StoreTokenOut:
    """A token to upload an image's blocks with, before there is a job."""
    quota = parts.settings.upload_quota_bytes
    token, expires_at = parts.store.token(caller, f"upload:{caller}", write=True, quota_bytes=quota)
    return StoreTokenOut(store_url=parts.store.url, store_token=token, expires_at=expires_at)
