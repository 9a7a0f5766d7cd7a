"""COPY writes what INSERT would, whatever is in a string."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from everlease.db import Database
from everlease.db.copy import copy_plain, copy_rows
from everlease.db.models.mirror import NodeAuthRow, PaymentRow, ProviderRow, UndoRow

strings = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    | st.text("\\\t\n\rN.\"'x", max_size=12)
    | st.sampled_from(["None", "\\N", "True"])
)
numbers = st.integers(-(2**200), 2**256 - 1)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | strings | numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
rows = st.lists(st.tuples(strings, numbers, st.none() | st.dictionaries(strings, values, max_size=3)), max_size=5)
here = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@here
@given(rows)
def test_copied_rows_are_read_back(database: Database, rows: list[tuple[str, int, dict[str, Any] | None]]) -> None:
    undo = [(number, "lease", key, before) for number, (key, _, before) in enumerate(rows)]
    staked = [(f"{number}", 7, cid, amount) for number, (cid, amount, _) in enumerate(rows)]
    zeros = ("locked", "unbonding", "unbonds_at", "slashed", "leases", "failed", "earned")
    with database.transaction() as tx:
        copy_rows(tx, UndoRow, ("block_number", "table", "key", "before"), undo)
        columns = ("provider", "block", "metadata_cid", "staked", *zeros)
        copy_plain(tx, ProviderRow, columns, [(*row, *[0] * len(zeros)) for row in staked])
        kept = select(UndoRow.block_number, UndoRow.table, UndoRow.key, UndoRow.before).order_by(UndoRow.block_number)
        assert [tuple(row) for row in tx.execute(kept)] == undo
        found = select(ProviderRow.provider, ProviderRow.block, ProviderRow.metadata_cid, ProviderRow.staked)
        assert [tuple(row) for row in tx.execute(found.order_by(ProviderRow.provider))] == staked
        tx.execute(delete(UndoRow))
        tx.execute(delete(ProviderRow))


@here
@given(st.lists(st.tuples(strings, numbers, st.none() | strings, st.none() | strings), max_size=5))
def test_plain_rows_keep_what_is_missing(
    database: Database, rows: list[tuple[str, int, str | None, str | None]]
) -> None:
    payments = [(f"{number}", *row) for number, row in enumerate(rows)]
    with database.transaction() as tx:
        columns = ("id", "account", "amount", "job_id", "lease_id", "reason", "at", "tx_hash", "block")
        copy_plain(tx, PaymentRow, columns, [(*payment, "", 1, "", 1) for payment in payments])
        found = select(*(getattr(PaymentRow, name) for name in columns[:5])).order_by(PaymentRow.id)
        assert [tuple(row) for row in tx.execute(found)] == payments
        nodes = [(f"{number}", "0x", amount % 2 == 0, 1) for number, (_, amount, _, _) in enumerate(rows)]
        copy_plain(tx, NodeAuthRow, ("node", "provider", "active", "block"), nodes)
        every = select(NodeAuthRow.node, NodeAuthRow.provider, NodeAuthRow.active, NodeAuthRow.block)
        assert [tuple(row) for row in tx.execute(every.order_by(NodeAuthRow.node))] == nodes
        tx.execute(delete(PaymentRow))
        tx.execute(delete(NodeAuthRow))
