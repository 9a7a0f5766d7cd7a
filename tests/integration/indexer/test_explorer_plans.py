"""What PostgreSQL does for the explorer's queries once tables are large: it walks indexes, no further than a page."""

import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from everlease.db import Database
from everlease.db.explorer import MAX_PAGE
from indexer.app import Metrics, create_app
from tests.support import explorer_rows as rows
from tests.support.explorer_requests import after, requests
from tests.support.http import served_app
from tests.support.postgres import PostgresServer

LEASES = 10_000


def parts(name: str) -> int:
    """Parts of indexes that a page may be merged from: an event's names for each place of a party, a lease's states."""
    return 3 * 26 if name.startswith("events of a") else 6


@pytest.fixture(scope="module")
def large(postgres_server: PostgresServer) -> Iterator[Database]:
    name = postgres_server.create_database()
    database = Database(postgres_server.url(name))
    rows.fill(database, LEASES)
    yield database
    database.close()
    postgres_server.drop_database(name)


@pytest.fixture(scope="module")
def explorer(large: Database) -> Iterator[httpx.Client]:
    with served_app(create_app(large, Metrics())) as client:
        yield client


@pytest.fixture
def statements(large: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every SELECT that the explorer sends, with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    event.listen(large._engine, "before_cursor_execute", note)
    yield seen
    event.remove(large._engine, "before_cursor_execute", note)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def complaints(plan: dict[str, Any], bound: int) -> list[str]:
    """What a plan does that takes longer the more rows there are; no node may touch more than ``bound`` of them."""
    found = []
    for node in nodes(plan):
        touched = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in rows.LARGE:
            found.append(f"reads {node['Relation Name']} from end to end")
        if node["Node Type"] == "Bitmap Heap Scan":
            found.append(f"collects all matches in {node['Relation Name']}")
        if touched > bound:
            found.append(f"{node['Node Type']} touches {touched:.0f} rows")
    return found


def explain(database: Database, statements: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Plans of one transaction's statements, run again with the settings that it made."""
    plans = []
    with database._engine.connect() as connection:
        for statement, parameters in list(statements):
            if "set_config" in statement:
                connection.exec_driver_sql(statement)
                continue
            found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
            plans.append(found[0]["Plan"])
    return plans


@pytest.mark.parametrize("name", list(requests(LEASES)))
def test_every_query_walks_an_index(
    name: str, large: Database, explorer: httpx.Client, statements: list[tuple[str, Any]]
) -> None:
    chance, draw = random.Random(name), requests(LEASES)[name]
    for _ in range(8):
        statements.clear()
        path = draw(chance)
        answer = explorer.get(f"/v1/explorer{path}")
        assert answer.status_code == 200, (path, answer.text)
        plans = explain(large, statements)
        assert plans
        for plan in plans:
            limit = MAX_PAGE if "limit=" in path or name == "job" else 50
            assert not complaints(plan, parts(name) * (limit + 1)), (path, plan)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("SELECT sum(amount) FROM idx_event", "reads idx_event from end to end"),
        ("SELECT * FROM lease ORDER BY rate LIMIT 5", "reads lease from end to end"),
        (f"SELECT * FROM lease WHERE provider = '{rows.provider(10)}' ORDER BY rate", "collects all matches in lease"),
        ("SELECT * FROM idx_event WHERE amount = 5 ORDER BY block_number, log_index", "touches"),
    ],
)
def test_plans_that_grow_with_the_tables_are_noticed(statement: str, complaint: str, large: Database) -> None:
    walk = ("SELECT set_config('enable_seqscan', 'off', true)", None)
    statement = statement.replace("amount", "(args->>'amount')::int")
    (plan,) = explain(large, [walk, (statement, None)] if "touches" in complaint else [(statement, None)])
    assert any(complaint in found for found in complaints(plan, 5000))


def everything(explorer: httpx.Client, path: str, limit: int) -> list[dict[str, Any]]:
    """All pages of a list, in one."""
    found: list[dict[str, Any]] = []
    page = explorer.get(f"/v1/explorer{path}&limit={limit}").json()
    while True:
        found += page["items"]
        if page["next"] is None:
            return found
        page = explorer.get(f"/v1/explorer{path}&limit={limit}&after={page['next']}").json()


PROVIDER, NODE, JOB = rows.provider(2), rows.node(1), rows.job(3)
FROM = after([600, 0])


@pytest.fixture(scope="module")
def newest(explorer: httpx.Client) -> list[dict[str, Any]]:
    """All events below a block."""
    return everything(explorer, f"/events?after={FROM}", MAX_PAGE)


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        (f"address={PROVIDER}", lambda event: PROVIDER in event["parties"]),
        (f"address={NODE}", lambda event: NODE in event["parties"]),
        (f"address={PROVIDER}&name=Credited", lambda e: PROVIDER in e["parties"] and e["name"] == "Credited"),
        (f"job_id={JOB}", lambda event: event["job_id"] == JOB),
        (f"job_id={JOB}&name=LeaseOpened", lambda event: event["job_id"] == JOB and event["name"] == "LeaseOpened"),
    ],
)
def test_filters_and_pages_lose_and_double_nothing(
    filters: str, matches: Any, explorer: httpx.Client, newest: list[dict[str, Any]]
) -> None:
    expected = [item for item in newest if matches(item)]
    assert len(expected) > 7
    assert everything(explorer, f"/events?{filters}&after={FROM}", 7) == expected


def test_leases_of_a_job_and_of_a_provider(explorer: httpx.Client) -> None:
    every = everything(explorer, "/leases?", MAX_PAGE)
    assert len(every) == LEASES
    assert everything(explorer, f"/leases?provider={PROVIDER}", 70) == [x for x in every if x["provider"] == PROVIDER]
    of_job = everything(explorer, f"/leases?job_id={rows.job(1)}", 70)
    assert [item["epoch"] for item in of_job] == list(range(len(of_job), 0, -1))
    assert len(of_job) == sum(item["job_id"] == rows.job(1) for item in every)
    shown = explorer.get(f"/v1/explorer/jobs/{rows.job(1)}").json()["leases"]
    assert shown == of_job[:MAX_PAGE][::-1]


@pytest.mark.parametrize("filters", [f"job_id={JOB}&address={NODE}", f"job_id={JOB}&lease_id={rows.lease(1)}"])
def test_filters_that_no_index_serves_together_are_refused(filters: str, explorer: httpx.Client) -> None:
    answer = explorer.get(f"/v1/explorer/events?{filters}")
    assert answer.status_code == 400
    assert "one of" in answer.json()["detail"]
    assert explorer.get(f"/v1/explorer/leases?job_id={JOB}&state=ACTIVE").status_code == 400


@pytest.mark.parametrize(
    "query", [f"/events?after={after([10**30, 1])}", f"/leases?after={after([1, chr(0)])}", "/events?name=%00"]
)
def test_values_that_no_row_can_hold_are_refused(query: str, explorer: httpx.Client) -> None:
    answer = explorer.get(f"/v1/explorer{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"]
