"""Launching a job: the image into the store, the order signed, the job posted, the escrow funded."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from everlease.chain.contracts import NO_PERMIT
from everlease.chain.typed_data import job_id, order_digest
from everlease.cli.context import Wallet
from everlease.cli.images import LocalImages, StoredImage
from everlease.cli.market import Market
from everlease.domain.jobspec import spec_hash
from everlease.domain.terms import Order
from everlease.store.http import HttpBlockStore
from everlease.wire.http import JobOut, JobRequest, MarketOut, StoreTokenOut
from everlease.wire.jobfile import JobFile
from everlease.wire.spec import SpecModel
from everlease.wire.terms import OrderModel

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Launched:
    """A job that was posted and funded. ``fund_tx`` is the transaction's hash."""

    job: JobOut
    fund_tx: str


def make_order(job: JobFile, spec: SpecModel, market: MarketOut, tenant: str, now: int) -> Order:
    """The order that a job file and a market's suggested terms make; the nonce is random."""
    suggested = market.suggested
    collateral = job.min_collateral if job.min_collateral is not None else suggested["min_collateral"]
    return Order(
        tenant=tenant,
        watcher=market.watcher.lower(),
        job_spec=spec_hash(spec.to_domain()),
        max_rate_per_hour=job.max_price_per_hour,
        deposit=job.deposit,
        min_collateral=collateral,
        max_silence=suggested["max_silence"],
        max_epochs=max(job.recovery.max_recoveries + 1, suggested["max_epochs"]),
        epoch_fee=suggested["epoch_fee"],
        deadline=now + job.lifetime,
        nonce=secrets.randbits(256),
    )


def upload_image(market: Market, images: LocalImages, reference: str, note: Note) -> StoredImage:
    """The image's archive in the store, by a token of the marketplace."""
    images.local_id(reference)
    grant = market.post("/v1/store/tokens", StoreTokenOut)
    store = HttpBlockStore(grant.store_url, lambda: grant.store_token)
    try:
        return images.upload(reference, store, lambda done: note(f"image {reference}: {done >> 20} MiB stored"))
    finally:
        store.close()


def launch(market: Market, wallet: Wallet, images: LocalImages, job: JobFile, note: Note = lambda _: None) -> Launched:
    """Everything from a checked job file to a funded escrow. Nothing is spent before the marketplace took the order."""
    wallet.require_balance(job.deposit)
    terms = market.terms()
    image = upload_image(market, images, job.image, note)
    spec = job.spec(image.digest, image.user)
    order = make_order(job, spec, terms, wallet.address, int(time.time()))
    domain = wallet.deployment.escrow_domain
    signature = wallet.key.sign(order_digest(domain, order))
    note("order signed")
    request = JobRequest(
        spec=spec,
        order=OrderModel.from_domain(order),
        order_signature=signature,
        image_manifest=image.manifest,
        image_bytes=image.size,
    )
    posted = market.post("/v1/jobs", JobOut, request, spends=True)
    assert posted.id == job_id(domain, order)
    return Launched(posted, fund(wallet, order, note))


def fund(wallet: Wallet, order: Order, note: Note = lambda _: None) -> str:
    """Send `fund` with a permit, or on an allowance that is large enough already; returns the transaction's hash."""
    escrow = wallet.deployment.escrow
    enough = wallet.views.allowance(order.tenant, escrow) >= order.deposit
    permit = NO_PERMIT if enough else wallet.permit(escrow, order.deposit, int(time.time()) + 3600)
    receipt = wallet.send(wallet.escrow.fund(order, "0x", permit))
    note(f"escrow funded in block {receipt.block_number}")
    return receipt.tx_hash
