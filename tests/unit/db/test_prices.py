"""What settled leases say of prices: once they are final, one of each tenant, provider and day, from an index."""

from dataclasses import asdict
from typing import Any

import pytest
from sqlalchemy import text

from everlease.db import Database, nodes, prices
from everlease.db.models.jobs import JobRow
from everlease.db.models.mirror import CursorRow, LeaseRow
from everlease.domain.jobspec import CheckpointMode, CheckpointPolicy, JobSpec, Resources
from everlease.domain.reserve import MOST_OBSERVATIONS, WINDOW_DAYS, Observation, class_of

NODE, PROVIDER, TENANT = "0x" + "01" * 20, "0x" + "0b" * 20, "0x" + "0c" * 20
DAY_S = 86_400
NOW = 20_000.0 * DAY_S
CPU, GPU = Resources(0, 1000, 2 << 30, 1 << 30), Resources(1, 1000, 2 << 30, 1 << 30)


@pytest.fixture(autouse=True)
def _cursor(database: Database) -> None:
    with database.transaction() as tx:
        zero = dict.fromkeys(("block_number", "block_time", "final_number", "head_number"), 10)
        address = "0x" + "0d" * 20
        tx.add(
            CursorRow(
                id=1, chain_id=1, escrow=address, staking=address, genesis_hash="0x", block_hash="0x", reorgs=0,
                halted="", **zero,
            )
        )  # fmt: skip
        nodes.admit(tx, NODE, PROVIDER, "s", "", "1", {"gpus": [{"model": "NVIDIA H100"}]})


def job(tx: Any, number: int, resources: Resources = CPU, tenant: str = TENANT) -> JobRow:
    policy = CheckpointPolicy(CheckpointMode.AUTO, 300, 10)
    spec = JobSpec("j", "i", "sha256:" + "00" * 32, ("run",), resources, policy, 10)
    row = JobRow(
        id=f"0x{number:064x}", name="job", tenant=tenant, watcher=TENANT, order={}, spec=asdict(spec),
        order_signature="0x", image_digest="", state="AUCTIONING",
    )  # fmt: skip
    tx.add(row)
    tx.flush()
    return row


def lease(tx: Any, number: int, *, state: str = "CLOSED", block: int = 5, rate: int = 80_000, seconds: int = 90) -> str:
    """A mirrored lease that was paid for so long; returns its id."""
    units = dict.fromkeys(("collateral", "reserve", "bond", "fee", "slashed", "slot"), 0)
    zero = dict.fromkeys(
        ("earned", "seen_at", "seq", "started_at", "ends_at", "closable_at", "suspended_at", "answer_by", "ended_at"), 0
    )
    tx.merge(
        LeaseRow(
            lease_id=f"0x{number:064x}", job_id=f"0x{number:064x}", epoch=1, provider=PROVIDER, node=NODE, state=state,
            noticed=False, tx_hash="0x", block=block, rate=rate, paid=rate * seconds // 3600, **units, **zero,
        )
    )  # fmt: skip
    tx.flush()
    return f"0x{number:064x}"


def seen(database: Database, resources: Resources = CPU, model: str = "", now: float = NOW) -> list[Observation]:
    with database.transaction() as tx:
        prices.settle(tx, now)
        return prices.observed(tx, class_of(resources), model, now)


def test_a_lease_counts_once_it_ended_in_a_block_that_is_final(database: Database) -> None:
    with database.transaction() as tx:
        prices.note(tx, job(tx, 1), NODE, PROVIDER.upper().replace("X", "x"), lease(tx, 1, state="ACTIVE"), NOW)
    assert seen(database) == []
    with database.transaction() as tx:
        lease(tx, 1, block=11)
    assert seen(database) == [], "a reorg may take its end back"
    with database.transaction() as tx:
        lease(tx, 1)
    assert seen(database) == [Observation("cpu/1/2", TENANT, PROVIDER, 20_000, 80_000, 90)]
    with database.transaction() as tx:
        assert prices.settle(tx, NOW) == 0, "once"


def test_of_a_tenant_and_provider_one_a_day_is_kept_the_newest(database: Database) -> None:
    with database.transaction() as tx:
        for number, at in ((1, NOW), (2, NOW + 60), (3, NOW + DAY_S)):
            prices.note(tx, job(tx, number), NODE, PROVIDER, lease(tx, number, rate=80_000 * number), at)
    assert {(one.day, one.rate) for one in seen(database, now=NOW + DAY_S)} == {(20_000, 160_000), (20_001, 240_000)}


def test_what_was_never_paid_says_nothing_and_what_is_old_is_forgotten(database: Database) -> None:
    with database.transaction() as tx:
        prices.note(tx, job(tx, 1), NODE, PROVIDER, lease(tx, 1, seconds=0), NOW)
        prices.note(tx, job(tx, 2, tenant=NODE), NODE, PROVIDER, lease(tx, 2), NOW)
        prices.note(tx, job(tx, 3, tenant=PROVIDER), NODE, PROVIDER, "0x" + "ff" * 32, NOW)
    assert [one.tenant for one in seen(database)] == [NODE]
    assert seen(database, now=NOW + WINDOW_DAYS * DAY_S) == []
    with database.transaction() as tx:
        assert tx.scalar(text("SELECT count(*) FROM price")) == 0


def test_gpus_are_of_their_nodes_model_where_that_is_known(database: Database) -> None:
    with database.transaction() as tx:
        prices.note(tx, job(tx, 1, GPU), NODE, PROVIDER, lease(tx, 1), NOW)
        prices.note(tx, job(tx, 2, GPU), "0xunknown", PROVIDER, lease(tx, 2, rate=90_000), NOW)
    assert {one.rate for one in seen(database, GPU)} == {80_000, 90_000}
    assert {one.rate for one in seen(database, GPU, "NVIDIA H100")} == {80_000}
    assert seen(database, CPU) == []


def test_of_many_leases_the_longest_are_read_from_an_index(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute(
            text(
                "INSERT INTO price SELECT 'cpu/1/2', '', 19990 + n % 10, 't' || n / 10, 'p' || n % 300, 'l' || n,"
                " 80000, n FROM generate_series(1, 50000) n"
            )
        )
        tx.execute(text("ANALYZE price"))
        found = prices.observed(tx, "cpu/1/2", "", NOW)
        assert {one.seconds for one in found} == set(range(50_001 - MOST_OBSERVATIONS, 50_001))
        explained = "EXPLAIN SELECT * FROM price WHERE price_class = 'cpu/1/2' AND seconds > 0 AND day > 19910"
        lines = tx.scalars(text(f"{explained} ORDER BY seconds DESC, lease_id DESC LIMIT {MOST_OBSERVATIONS}")).all()
    assert any("ix_price_settled" in line for line in lines), lines
    assert not any("Sort" in line or "Seq Scan" in line for line in lines), lines
