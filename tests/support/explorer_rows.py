# ruff: noqa: E501 - rows of SQL
"""A mirror of any size, made by PostgreSQL itself: ten events a lease, and few parties that take part in most of them.

Number 1 of each kind is the busiest: of 10⁶ leases, the busiest provider has 10⁵, the busiest job 10⁴; the treasury is
named by a tenth of all events. A lease's events lie scattered over the whole history, the worst case for a cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import text

from everlease.db import Database
from everlease.db.engine import Tx

LARGE = ("lease", "escrow", "idx_event", "payment", "slash")
TREASURY = "0x" + "f" * 40
EVENTS_OF_LEASE = 10
EVENTS_OF_BLOCK = 20


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of each kind a mirror with so many leases has; at least 100 leases."""

    leases: int

    @property
    def jobs(self) -> int:
        return self.leases // 2

    @property
    def providers(self) -> int:
        return self.leases // 1000 + 10

    @property
    def nodes(self) -> int:
        return self.leases // 50

    @property
    def tenants(self) -> int:
        return self.leases // 100

    @property
    def blocks(self) -> int:
        return self.leases * EVENTS_OF_LEASE // EVENTS_OF_BLOCK


def job(number: int) -> str:
    """Id of a job, from 1."""
    return f"0x{number:064x}"


def lease(number: int) -> str:
    """Id of a lease, from 0, in the order of their starts (two a second)."""
    return f"0xc{number:063x}"


def provider(number: int) -> str:
    """Address of a provider, from 1."""
    return f"0x{number:040x}"


def node(number: int) -> str:
    """Address of a node, from 1."""
    return f"0xa{number:039x}"


def tenant(number: int) -> str:
    """Address of a tenant, from 1."""
    return f"0xb{number:039x}"


_FUNCTIONS = (
    # A number from 1 to among; the higher the power, the more often a small one.
    """CREATE FUNCTION pg_temp.skewed(n bigint, salt bigint, among bigint, power float8) RETURNS bigint IMMUTABLE
       RETURN 1 + floor(among * power((hashint8extended(n, salt) & 9007199254740991) / 9007199254740992.0, power))::bigint""",
    "CREATE FUNCTION pg_temp.id(n bigint) RETURNS text IMMUTABLE RETURN '0x' || lpad(to_hex(n), 64, '0')",
    "CREATE FUNCTION pg_temp.lease(n bigint) RETURNS text IMMUTABLE RETURN '0xc' || lpad(to_hex(n), 63, '0')",
    "CREATE FUNCTION pg_temp.who(kind text, n bigint) RETURNS text IMMUTABLE RETURN '0x' || kind || lpad(to_hex(n), 40 - length(kind), '0')",
    "CREATE FUNCTION pg_temp.job_of(n bigint) RETURNS bigint IMMUTABLE RETURN pg_temp.skewed(n, 1, {jobs}, 3)",
    "CREATE FUNCTION pg_temp.provider_of(n bigint) RETURNS text IMMUTABLE RETURN pg_temp.who('', pg_temp.skewed(n, 2, {providers}, 3))",
    "CREATE FUNCTION pg_temp.node_of(n bigint) RETURNS text IMMUTABLE RETURN pg_temp.who('a', pg_temp.skewed(n, 3, {nodes}, 2))",
    "CREATE FUNCTION pg_temp.tenant_of(job bigint) RETURNS text IMMUTABLE RETURN pg_temp.who('b', pg_temp.skewed(job, 4, {tenants}, 3))",
)
_ROWS = (
    """INSERT INTO provider (provider, staked, locked, unbonding, unbonds_at, slashed, metadata_cid, leases, failed, earned, block)
       SELECT pg_temp.who('', n), n * 7919 % 100003, 7, 0, 0, 1, 'bafy', 1, 0, 0, n FROM generate_series(1, {providers}) n""",
    """INSERT INTO node_auth (node, provider, active, block)
       SELECT pg_temp.who('a', n), pg_temp.provider_of(n), n % 10 > 0, n FROM generate_series(1, {nodes}) n""",
    """INSERT INTO claimable (account, amount, credited, withdrawn, block)
       SELECT pg_temp.who('', n), n, 2 * n, n, n FROM generate_series(1, {providers}) n""",
    """INSERT INTO escrow (job_id, tenant, watcher, job_spec, max_rate_per_hour, deposit, min_collateral, max_silence,
       max_epochs, epoch_fee, deadline, nonce, epochs, balance, reserved, deposited, paid, fees, refunded, cancelled, funded_at, block,
       order_deadline, order_max_epochs, order_max_rate)
       SELECT pg_temp.id(n), pg_temp.tenant_of(n), pg_temp.who('d', 1), pg_temp.id(n), 500000, 2000000, 1, 5, 1000000, 1,
       n + 1000000, n, 1, 1000000, 5, 2000000, 7, 0, 0, false, n, n, n + 1000000, 1000000, 500000 FROM generate_series(1, {jobs}) n""",
    """INSERT INTO lease (lease_id, job_id, epoch, provider, node, rate, collateral, reserve, bond, paid, fee, slashed, state,
       noticed, earned, seen_at, seq, started_at, ends_at, closable_at, suspended_at, answer_by, ended_at, slot,
       tx_hash, block)
       SELECT pg_temp.lease(n), pg_temp.id(job), row_number() OVER (PARTITION BY job ORDER BY n), pg_temp.provider_of(n),
       pg_temp.node_of(n), 500000, 1000000, 0, 0, 0, 0, 0,
       CASE WHEN n > {leases} * 49 / 50 THEN 'ACTIVE' WHEN n % 20011 = 7 THEN 'SUSPENDED' WHEN n % 50 = 1 THEN 'FAILED'
       WHEN n % 50 = 2 THEN 'CLEARED' ELSE 'CLOSED' END,
       false, 0, n / 2, 0, n / 2, n, n, 0, 0, 0, n, pg_temp.id(n), n / 2
       FROM (SELECT n, pg_temp.job_of(n) AS job FROM generate_series(0, {leases} - 1) n) numbered""",
    """INSERT INTO slash (lease_id, job_id, provider, node, caller, answered, slashed, to_job, to_caller, to_insurance, at, tx_hash, block)
       SELECT lease_id, job_id, provider, node, provider, false, 1, 1, 0, 0, started_at, tx_hash, block
       FROM lease WHERE state = 'FAILED'""",
    """INSERT INTO payment (id, account, reason, amount, job_id, lease_id, at, tx_hash, block)
       SELECT lpad((n / 20)::text, 12, '0') || '-' || lpad((n % 20)::text, 6, '0'),
       CASE n % 3 WHEN 0 THEN pg_temp.tenant_of(pg_temp.job_of(n / 3)) WHEN 1 THEN pg_temp.provider_of(n / 3) ELSE '{treasury}' END,
       (ARRAY['DEPOSIT', 'EARNINGS', 'SERVICE_FEE'])[n % 3 + 1], n, pg_temp.id(pg_temp.job_of(n / 3)), NULL, n, pg_temp.id(n), n / 20
       FROM generate_series(0, {leases} * 3 - 1) n""",
    """INSERT INTO idx_event (block_number, log_index, block_hash, block_time, tx_hash, address, name, args, job_id, lease_id, parties)
       SELECT n / 20, n % 20, pg_temp.id(n / 20), n / 20, pg_temp.id(n), pg_temp.who('e', 1), name,
       jsonb_build_object('job_id', pg_temp.id(job), 'lease_id', pg_temp.lease(lease), 'amount', n, 'seen_at', n),
       CASE WHEN kind NOT IN (2, 9) THEN pg_temp.id(job) END, CASE WHEN kind NOT IN (0, 2, 9) THEN pg_temp.lease(lease) END,
       CASE WHEN kind = 0 THEN jsonb_build_array(pg_temp.tenant_of(job), pg_temp.who('d', 1))
       WHEN kind = 1 THEN jsonb_build_array(pg_temp.provider_of(lease), pg_temp.node_of(lease))
       WHEN kind IN (3, 5) THEN '[]'::jsonb
       WHEN kind = 7 THEN jsonb_build_array('{treasury}')
       WHEN kind = 8 THEN jsonb_build_array(pg_temp.who('d', 1))
       ELSE jsonb_build_array(pg_temp.provider_of(lease)) END
       FROM (SELECT n, lease, kind, pg_temp.job_of(lease) AS job, CASE WHEN kind = 7 AND n % 100003 = 0 THEN 'Withdrawn' ELSE
             (ARRAY['JobFunded', 'LeaseOpened', 'LeaseNotice', 'LeaseCollected', 'Credited', 'LeaseCollected', 'Credited',
                    'Credited', 'LeaseClosed', 'FeesSwept'])[kind + 1] END AS name
             FROM (SELECT n, n % {leases} AS lease, (n / {leases} + n) % 10 AS kind
                   FROM generate_series(0, {leases}::bigint * 10 - 1) n) kinds) events""",
    """INSERT INTO idx_cursor (id, chain_id, escrow, staking, genesis_hash, block_number, block_hash, block_time, final_number,
       head_number, reorgs, halted) VALUES (1, 1, '0x', '0x', '0x', {blocks}, '0x', 1, 1, {blocks}, 0, '')""",
    """INSERT INTO idx_totals SELECT 1, (SELECT count(*) FROM escrow),
       count(*) FILTER (WHERE state = 'ACTIVE'), count(*) FILTER (WHERE state = 'CLOSED'),
       count(*) FILTER (WHERE state = 'SUSPENDED'), count(*) FILTER (WHERE state = 'CLEARED'),
       count(*) FILTER (WHERE state = 'FAILED'), {providers}, {nodes}, 1, 1, 1, 1, 1, 1, 1, 1, 1 FROM lease""",
)


def fill(database: Database, leases: int) -> None:
    """``leases`` leases and ten times as many events in an empty mirror, with statistics and a visibility map."""
    sizes = Sizes(leases)
    numbers = {name: getattr(sizes, name) for name in ("leases", "jobs", "providers", "nodes", "tenants", "blocks")}
    with database.transaction() as tx:
        tx.execute(text("SET LOCAL maintenance_work_mem = '1GB'"))
        with _indexes_afterwards(tx):
            for statement in (*_FUNCTIONS, *_ROWS):
                tx.execute(text(statement.format(**numbers, treasury=TREASURY).replace(":", "\\:")))
    with database._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE)"))


@contextmanager
def _indexes_afterwards(tx: Tx) -> Iterator[None]:
    """Indexes and keys of the large tables are dropped and built when the rows are there: several times faster."""
    indexes = tx.execute(
        text(
            "SELECT indexrelid::regclass::text, indrelid::regclass::text, conname, pg_get_constraintdef(c.oid),"
            " pg_get_indexdef(indexrelid) FROM pg_index LEFT JOIN pg_constraint c ON conindid = indexrelid"
            " WHERE indrelid::regclass::text = ANY(:tables)".replace("::", "\\:\\:")
        ),
        {"tables": list(LARGE)},
    ).all()
    for name, table, constraint, _, _ in indexes:
        tx.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}" if constraint else f"DROP INDEX {name}"))
    yield
    for _, table, constraint, key, definition in indexes:
        made = f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {key}" if constraint else definition
        tx.execute(text(made))
