"""Garbage collection from what the database says is live."""

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from everlease.db.models.jobs import CheckpointRow, JobRow
from everlease.domain.manifest import CID
from everlease.store.block_service import GcReport, Session
from everlease.store.cid import cid_of
from everlease.store.plain import upload_plain
from marketplace.parts import Parts, build_parts
from marketplace.services.images import check_image
from marketplace.services.store import StoreGate
from marketplace.services.upkeep import collect_garbage
from tests.support.deployed import Market
from tests.support.marketplace import make_settings, mirror_escrow

pytestmark = pytest.mark.anvil
DAY = 86_400
JOB = "0x" + "ab" * 32


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
        job_id=JOB, seq=seq, depth=seq, fence=1, epoch=1, node="0x" + "01" * 20, mode="files", manifest=manifest,
        predecessor=None, block_cids=blocks, generation=1, generations=[1], requirements={}, logical_bytes=1,
        new_bytes=1, pause_s=0.0, total_s=0.0, taken_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


def job(image: str, state: str = "RUNNING") -> JobRow:
    return JobRow(
        id=JOB, name="job", tenant="0x" + "02" * 20, watcher="0x" + "03" * 20, order={}, spec={}, order_signature="0x",
        image_digest="", image_manifest=image, state=state,
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
        tx.add(job(image.cid))
        tx.add(checkpoint(1, before, [old, shared]))
        tx.add(checkpoint(2, head, [kept, shared]))

    mirror_escrow(parts.db, market, JOB)

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
        row = tx.get_one(CheckpointRow, (JOB, 1))
        row.condemned_at = row.taken_at
    collect_twice()
    assert present(parts, head, kept, shared) == [True] * 3
    assert present(parts, before, old) == [False, False]
    parts.close()


@pytest.mark.parametrize("what", ["no list", "huge numbers", "no block", "not there", "damaged"])
def test_a_tenant_that_names_no_image_list_stops_nothing(
    market: Market, postgres_url: str, tmp_path: Path, what: str
) -> None:
    clock = Clock()
    parts = build_parts(make_settings(market, postgres_url, tmp_path), clock)
    file = tmp_path / "image.tar"
    file.write_bytes(os.urandom(3000))
    body = {"no list": "text", "huge numbers": '{"blocks":[],"sha256":"","size":1e999,"version":1}'}.get(what, what)
    image = {"no block": "b" + "a" * 30, "not there": cid_of(b"not there")}.get(what) or put(parts, body, clock)
    if what == "damaged":
        (pack,) = (tmp_path / "store" / "packs").iterdir()
        pack.write_bytes(pack.read_bytes().replace(body.encode(), b"D" * len(body)))
    orphan = put(parts, "orphan", clock)
    with parts.db.transaction() as tx:
        tx.add(job(image))
    mirror_escrow(parts.db, market, JOB)
    for _ in range(3):
        assert collect_garbage(parts) is not None
        clock.now += 2 * DAY
    assert present(parts, orphan) == [False]
    parts.close()


def test_an_order_without_its_deposit_keeps_nothing(market: Market, postgres_url: str, tmp_path: Path) -> None:
    clock = Clock()
    parts = build_parts(make_settings(market, postgres_url, tmp_path), clock)
    file = tmp_path / "image.tar"
    file.write_bytes(os.urandom(3000))
    image = upload_plain(parts.store._local, file)
    with parts.db.transaction() as tx:
        tx.add(job(image.cid, state="PENDING"))
    for _ in range(3):
        assert collect_garbage(parts) is not None
        clock.now += 2 * DAY
    assert present(parts, image.cid, image.blocks[0][0]) == [False, False]
    parts.close()


def test_one_replica_collects_until_it_has_collected(market: Market, postgres_url: str, tmp_path: Path) -> None:
    parts = build_parts(make_settings(market, postgres_url, tmp_path), Clock())
    seen: list[GcReport | None] = []

    class Slow:
        """A store that is still collecting while another replica begins."""

        def collect(self, live: Iterable[str]) -> GcReport:
            seen.append(collect_garbage(parts))
            return parts.store.collect(live)

    assert collect_garbage(replace(parts, store=cast(StoreGate, Slow()))) is not None
    assert seen == [None]
    assert collect_garbage(parts) is not None
    parts.close()


def test_the_image_of_an_order_stays_from_when_the_order_was_posted(
    market: Market, postgres_url: str, tmp_path: Path
) -> None:
    """It was uploaded long before, and its upload's session is over."""
    clock = Clock()
    parts = build_parts(make_settings(market, postgres_url, tmp_path), clock)
    file = tmp_path / "image.tar"
    file.write_bytes(os.urandom(3000))
    image = upload_plain(parts.store._local, file)
    check_image(parts.store, image.cid, 3000)
    assert collect_garbage(parts) is not None
    clock.now += 7.5 * 3600
    assert collect_garbage(parts) is not None
    assert present(parts, image.cid, image.blocks[0][0]) == [True, True], "condemned no sooner than six hours later"
    clock.now += 7.5 * 3600
    assert collect_garbage(parts) is not None
    assert present(parts, image.cid, image.blocks[0][0]) == [False, False]
    parts.close()
