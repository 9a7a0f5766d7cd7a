"""Garbage collection from what the database says is live."""

import os
import time
from pathlib import Path

import pytest

from everlease.db.models.jobs import CheckpointRow, JobRow
from everlease.domain.manifest import CID
from everlease.store.block_service import Session
from everlease.store.cid import cid_of
from everlease.store.plain import upload_plain
from marketplace.parts import Parts, build_parts
from marketplace.services.upkeep import collect_garbage
from tests.support.deployed import Market
from tests.support.marketplace import make_settings

pytestmark = pytest.mark.anvil
DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def put(parts: Parts, text: str, clock: Clock) -> CID:
    """A block, uploaded in a session that ends soon."""
    assert parts.store._service is not None
    data = text.encode()
    parts.store._service.put(Session(f"upload-{text}", clock.now + 60), [(cid_of(data), data)])
    return cid_of(data)


def checkpoint(seq: int, manifest: CID, blocks: list[CID]) -> CheckpointRow:
    return CheckpointRow(
        job_id="0x" + "ab" * 32, seq=seq, fence=1, epoch=1, node="0x" + "01" * 20, mode="files", manifest=manifest,
        predecessor=None, block_cids=blocks, generation=1, generations=[1], requirements={}, logical_bytes=1,
        new_bytes=1, pause_s=0.0, total_s=0.0, taken_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


def present(parts: Parts, *cids: CID) -> list[bool]:
    missing = parts.store._local.has(cids)
    return [cid in missing for cid in cids]


def test_only_what_a_checkpoint_or_image_needs_survives(market: Market, postgres_url: str, tmp_path: Path) -> None:
    clock = Clock()
    parts = build_parts(make_settings(market, postgres_url, tmp_path), clock)
    file = tmp_path / "image.tar"
    file.write_bytes(os.urandom(3000))
    image = upload_plain(parts.store._local, file)
    kept, shared, old, orphan = (put(parts, name, clock) for name in ("kept", "shared", "old", "orphan"))
    head, before = put(parts, "head", clock), put(parts, "before", clock)
    with parts.db.transaction() as tx:
        tx.add(
            JobRow(
                id="0x" + "ab" * 32, name="job", tenant="0x" + "02" * 20, watcher="0x" + "03" * 20, order={}, spec={},
                order_signature="0x", image_digest="", image_manifest=image.cid, state="RUNNING",
            )
        )  # fmt: skip
        tx.add(checkpoint(1, before, [old, shared]))
        tx.add(checkpoint(2, head, [kept, shared]))

    def collect_twice() -> None:
        """Condemn, then wait out every pin and the grace, then delete."""
        for _ in range(3):
            assert collect_garbage(parts) is not None
            clock.now += 2 * DAY

    collect_twice()
    assert present(parts, head, before, kept, shared, old) == [True] * 5
    assert present(parts, image.cid, image.blocks[0][0]) == [True, True]
    assert present(parts, orphan) == [False]
    with parts.db.transaction() as tx:
        row = tx.get_one(CheckpointRow, ("0x" + "ab" * 32, 1))
        row.condemned_at = row.taken_at
    collect_twice()
    assert present(parts, head, kept, shared) == [True] * 3
    assert present(parts, before, old) == [False, False]
    parts.close()


def test_a_tenant_that_names_no_image_list_stops_nothing(market: Market, postgres_url: str, tmp_path: Path) -> None:
    clock = Clock()
    parts = build_parts(make_settings(market, postgres_url, tmp_path), clock)
    nonsense, orphan = put(parts, "not a list", clock), put(parts, "orphan", clock)
    with parts.db.transaction() as tx:
        tx.add(
            JobRow(
                id="0x" + "ab" * 32, name="job", tenant="0x" + "02" * 20, watcher="0x" + "03" * 20, order={}, spec={},
                order_signature="0x", image_digest="", image_manifest=nonsense, state="RUNNING",
            )
        )  # fmt: skip
    for _ in range(3):
        assert collect_garbage(parts) is not None
        clock.now += 2 * DAY
    assert present(parts, orphan) == [False]
    parts.close()
