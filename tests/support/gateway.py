"""What gateway tests do beside the node: awards, commands and auctions as recovery writes them, and looks at rows."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, text

from everlease.db import auctions, checkpoints, commands, jobs, nodes
from everlease.db.models.jobs import AuctionRow, AwardRow
from everlease.db.models.nodes import CommandRow
from everlease.db.models.outbox import OutboxRow
from everlease.domain.manifest import BlockRef, FileEntry, Manifest
from everlease.store.base import put_block
from everlease.store.http import HttpBlockStore
from everlease.store.manifest import commitment, sign_manifest
from everlease.store.sealing import JobKeys
from tests.support.marketplace import REQUIREMENTS, SPEC, FakeNode, Service, make_award, mirror_lease


def topics(service: Service) -> list[str]:
    with service.db.transaction() as tx:
        return list(tx.scalars(select(OutboxRow.topic).order_by(OutboxRow.id)))


def refusals(service: Service, job_id: str) -> dict[str, int]:
    with service.db.transaction() as tx:
        return nodes.refusals(tx, job_id)


def award(service: Service, node: FakeNode, job_id: str) -> AwardRow:
    return make_award(service.db, job_id, node.key, node.provider)


def begin(service: Service, held: AwardRow) -> None:
    with service.db.transaction() as tx:
        row = tx.get_one(AwardRow, held.id)
        row.started_at = datetime.now(UTC)


def line(held: AwardRow, serving: bool = True) -> dict[str, Any]:
    return {"job_id": held.job_id, "fence": held.fence, "serving": serving, "loss_bound_s": 12.5}


def issue(service: Service, held: AwardRow, kind: str, payload: dict[str, Any], step: str = "") -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    with service.db.transaction() as tx:
        step = step or f"{kind}/{held.fence}"
        commands.issue(tx, held.node, held.job_id, held.fence, step, kind, payload, deadline)


def start_payload(held: AwardRow) -> dict[str, Any]:
    return {
        "lease_id": held.lease_id,
        "epoch": held.epoch,
        "rate_per_hour": held.rate_per_hour,
        "spec": SPEC,
        "checkpoint": held.restore_manifest,
        "checkpoint_seq": held.restore_seq,
        "mode": held.mode,
        "generation": held.generation,
        "not_before": 0.0,
        "max_silence": 6.0,
        "mtbf_s": 86_400.0,
    }


def command_row(service: Service, step: str) -> CommandRow:
    with service.db.transaction() as tx:
        return tx.scalars(select(CommandRow).where(CommandRow.step == step)).one()


def refused_command(service: Service, step: str) -> CommandRow:
    """The command once the gateway has finished it by itself."""
    until = time.monotonic() + 10
    while (row := command_row(service, step)).finished_at is None and time.monotonic() < until:
        time.sleep(0.05)
    return row


def starting(service: Service, node: FakeNode, job_id: str) -> tuple[AwardRow, Any]:
    """An award whose Start was sent: its generation has a key."""
    held = award(service, node, job_id)
    mirror_lease(service.db, held)
    issue(service, held, "start", start_payload(held))
    return held, node.expect("command").command


def started(service: Service, node: FakeNode, job_id: str) -> tuple[AwardRow, Any]:
    """An award whose node says that the job has started."""
    held, command = starting(service, node, job_id)
    node.send("command_result", result={"job_id": job_id, "fence": held.fence, "step": command.step, "ok": True})
    node.beat()
    return held, command


def commit_fields(
    service: Service, node: FakeNode, held: AwardRow, content: bytes = b"sealed", **changes: Any
) -> dict[str, Any]:
    """A commit whose manifest and block are in the store, following the head; ``changes`` go into the manifest."""
    token, _ = service.parts.store.token(node.key.address, "test", write=True)
    store = HttpBlockStore(service.parts.store.url, lambda: token)
    with service.db.transaction() as tx:
        job = jobs.get(tx, held.job_id)
        head = checkpoints.by_manifest(tx, job.head_manifest) if job.head_manifest else None
        service.parts.keys.ensure(tx, held.job_id, held.generation)
        secret = service.parts.keys.plain(tx, held.job_id, held.generation)
    deployment = service.parts.deployment
    terms = (deployment.chain_id, deployment.escrow, held.job_id)
    keys = JobKeys(*terms, held.generation, {held.generation: secret}, bytes(32))
    block = put_block(store, keys.seal(content))
    refs = (BlockRef(block, 0, held.generation, len(content)),)
    fields: dict[str, Any] = {
        "seq": head.depth + 1 if head is not None else 1,
        "fence": held.fence,
        "epoch": held.epoch,
        "lease_id": held.lease_id,
        "node": node.key.address,
        "mode": "process",
        "generation": held.generation,
        "predecessor": job.head_manifest,
        "created_at": time.time(),
        "entries": (FileEntry("files/checkpoint.tar", "file", len(content), blocks=refs),),
        "requirements": {name: str(value) for name, value in REQUIREMENTS.items()},
        **changes,
    }
    manifest = Manifest(*terms, **fields)
    payload = sign_manifest(manifest, node.key.secret)
    cid = put_block(store, keys.seal(payload))
    store.close()
    digest, signature = commitment(payload)
    return {
        "request": f"commit-{content.decode()}",
        "job_id": held.job_id,
        "fence": held.fence,
        "checkpoint_seq": manifest.seq,
        "manifest": cid,
        "predecessor": manifest.predecessor,
        "manifest_digest": digest,
        "signature": signature,
        "block_cids": sorted(manifest.cids()),
        "mode": manifest.mode,
        "generation": manifest.generation,
        "generations": sorted(manifest.generations()),
        "logical_bytes": manifest.logical_bytes,
        "new_bytes": 100,
        "pause_s": 0.5,
        "total_s": 1.5,
        "taken_at": time.time(),
        "requirements": dict(manifest.requirements),
    }


def open_auction(service: Service, job_id: str, excluded: dict[str, str] | None = None, window_s: float = 30) -> int:
    now = datetime.now(UTC)
    with service.db.transaction() as tx:
        row = AuctionRow(
            job_id=job_id,
            epoch=1,
            plan="first",
            mode="process",
            excluded=excluded or {},
            opened_at=now,
            closes_at=now + timedelta(seconds=window_s),
            bids_until=now + timedelta(seconds=300),
        )
        tx.add(row)
        tx.flush()
        tx.execute(text("SELECT pg_notify(:c, :i)"), {"c": auctions.CHANNEL, "i": str(row.id)})
        return row.id


def auction_row(service: Service, auction_id: int) -> AuctionRow:
    with service.db.transaction() as tx:
        return tx.get_one(AuctionRow, auction_id)
