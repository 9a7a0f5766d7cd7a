# ruff: noqa: E501 - rows of SQL
"""A mirror of any size, made by PostgreSQL itself: jobs, leases, providers, slashes, payments, ten events a lease."""

import asyncio

import httpx
from fastapi import FastAPI
from sqlalchemy import text

from everlease.db import Database

_STATEMENTS = (
    """INSERT INTO provider SELECT '0x' || lpad(to_hex(n), 40, '0'), n * 7919 % 100003, 0, 0, 0, 0, 'b', 1, 0, 0, n
       FROM generate_series(1, :leases / 100 + 1) n""",
    """INSERT INTO node_auth SELECT '0xa' || lpad(to_hex(n), 39, '0'),
       '0x' || lpad(to_hex(n % (:leases / 100) + 1), 40, '0'),
       true, n FROM generate_series(1, :leases / 50 + 1) n""",
    """INSERT INTO escrow (job_id, tenant, watcher, job_spec, max_rate_per_hour, deposit, min_collateral, max_silence,
       max_epochs, epoch_fee, deadline, nonce, epochs, balance, reserved, deposited, paid, refunded, cancelled,
       funded_at, block)
       SELECT '0x' || lpad(to_hex(n), 64, '0'), '0xb' || lpad(to_hex(n % (:leases / 100) + 1), 39, '0'), '0x', '0x', 1, 1,
       1, 5,
       9, 1, 9, n, 1, 10, 5, 10, 0, 0, false, n, n FROM generate_series(1, :leases) n""",
    """INSERT INTO lease (lease_id, job_id, epoch, provider, node, rate, collateral, reserve, bond, paid, fee, slashed, state,
       noticed, earned, seen_at, seq, started_at, ends_at, closable_at, suspended_at, answer_by, ended_at, bid_hash, slot,
       tx_hash, block)
       SELECT '0xc' || lpad(to_hex(n), 63, '0'), '0x' || lpad(to_hex(n), 64, '0'), 1,
       '0x' || lpad(to_hex(n % (:leases / 100) + 1), 40, '0'), '0xa' || lpad(to_hex(n % (:leases / 50) + 1), 39, '0'),
       1, 1, 0, 0, 0, 0, 0, (ARRAY['ACTIVE', 'CLOSED', 'CLOSED', 'CLOSED'])[n % 4 + 1], false, 0, 0, 0, n, n, n, 0, 0, 0,
       '0x', n, '0x', n FROM generate_series(1, :leases) n""",
    """INSERT INTO slash SELECT '0xc' || lpad(to_hex(n), 63, '0'), '0x' || lpad(to_hex(n), 64, '0'),
       '0x' || lpad(to_hex(n % (:leases / 100) + 1), 40, '0'), '0x', '0x', false, 1, 1, 0, 0, n, '0x', n
       FROM generate_series(1, :leases / 20) n""",
    """INSERT INTO payment SELECT lpad(n::text, 12, '0') || '-000001', '0xb' || lpad(to_hex(n % (:leases / 100) + 1), 39, '0'),
       'DEPOSIT', 1, '0x' || lpad(to_hex(n), 64, '0'), NULL, n, '0x', n FROM generate_series(1, :leases) n""",
    """INSERT INTO idx_event SELECT n / 20, n % 20, '0x', n, '0xd' || lpad(to_hex(n), 63, '0'), '0x',
       (ARRAY['LeaseCollected', 'LeaseCollected', 'LeaseOpened', 'JobFunded', 'Credited'])[n % 5 + 1], '{"amount": 1}',
       '0x' || lpad(to_hex(n % :leases + 1), 64, '0'), '0xc' || lpad(to_hex(n % :leases + 1), 63, '0'),
       jsonb_build_array('0xb' || lpad(to_hex(n % (:leases / 100) + 1), 39, '0')) FROM generate_series(1, :leases * 10) n""",
    """INSERT INTO idx_cursor (id, chain_id, escrow, staking, genesis_hash, block_number, block_hash, block_time, final_number,
       head_number, reorgs, halted) VALUES (1, 1, '0x', '0x', '0x', 1, '0x', 1, 1, 1, 0, '')""",
)


def fill(database: Database, leases: int) -> None:
    """``leases`` leases and ten times as many events in an empty mirror, with statistics. At least 100 leases."""
    with database.transaction() as tx:
        for statement in _STATEMENTS:
            tx.execute(text(statement), {"leases": leases})
    with database.transaction() as tx:
        tx.execute(text("ANALYZE"))


def paths(leases: int) -> dict[str, str]:
    """Every explorer endpoint with arguments that find something, by a short name."""
    job, lease = "0x" + f"{leases // 2:x}".rjust(64, "0"), "0x" + "c" + f"{leases // 2:x}".rjust(63, "0")
    provider, tenant = "0x" + f"{3:x}".rjust(40, "0"), "0x" + "b" + f"{3:x}".rjust(39, "0")
    return {
        "leases": "/leases",
        "leases of a state": "/leases?state=ACTIVE",
        "leases of a provider": f"/leases?provider={provider}",
        "leases of a job": f"/leases?job_id={job}",
        "lease": f"/leases/{lease}",
        "events": "/events",
        "events of a name": "/events?name=LeaseOpened",
        "events of a job": f"/events?job_id={job}",
        "events of a lease": f"/events?lease_id={lease}",
        "events of an address": f"/events?address={tenant}",
        "providers": "/providers",
        "slashes": "/slashes",
        "job": f"/jobs/{job}",
        "address": f"/addresses/{tenant}",
        "stats": "/stats",
        "status": "/status",
    }


def get(app: FastAPI, path: str) -> httpx.Response:
    """One request to the app, without a network."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://explorer") as client:
            return await client.get(f"/v1/explorer{path}")

    return asyncio.run(ask())
