"""What PostgreSQL does for the explorer's queries once tables are large: no list reads one from end to end."""

from typing import Any

import pytest
from sqlalchemy import event, text

from everlease.db import Database
from indexer.app import Metrics, create_app
from tests.support.explorer_rows import fill, get, paths

LEASES = 20_000
LARGE = ("lease", "escrow", "idx_event", "payment", "slash")
WHOLE = {"stats"}
"""Totals read every row by their nature."""


def sequential(plan: dict[str, Any]) -> list[str]:
    """Tables that a plan reads from end to end."""
    found = [plan["Relation Name"]] if plan["Node Type"] == "Seq Scan" else []
    return found + [table for part in plan.get("Plans", []) for table in sequential(part)]


@pytest.fixture
def statements(database: Database) -> list[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        seen.append((statement, parameters))

    event.listen(database._engine, "before_cursor_execute", note)
    return seen


def test_no_list_reads_a_large_table_whole(database: Database, statements: list[tuple[str, Any]]) -> None:
    fill(database, LEASES)
    app = create_app(database, Metrics())
    for name, path in paths(LEASES).items():
        if name in WHOLE:
            continue
        statements.clear()
        answer = get(app, path)
        assert answer.status_code == 200, (name, answer.text)
        for statement, parameters in [entry for entry in statements if entry[0].startswith("SELECT")]:
            with database._engine.connect() as connection:
                plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
            assert not set(sequential(plan[0]["Plan"])) & set(LARGE), (name, statement)


def test_pages_go_on_where_they_ended(database: Database) -> None:
    fill(database, 200)
    app = create_app(database, Metrics())
    first = get(app, "/leases?limit=150").json()
    second = get(app, f"/leases?limit=150&after={first['next']}").json()
    assert second["next"] is None
    assert len({lease["lease_id"] for lease in first["items"] + second["items"]}) == 200
    with database.transaction() as tx:
        assert tx.scalar(text("SELECT count(*) FROM idx_event")) == 2000
