"""Nodes whose gateway ended are not connected, and nothing else is said of them."""

from datetime import UTC, datetime, timedelta

from everlease.db import Database, Tx, gateways, nodes, queries
from everlease.db.models.nodes import NodeRow
from marketplace.services.presentation import node_out
from tests.support.presence import gateway_up

ONE, TWO, THREE = ("0x" + digit * 40 for digit in "123")


def admit(tx: Tx, node: str, gateway: int | None, session: str = "s", *, silent_s: float = 0.0) -> None:
    row = nodes.admit(tx, node, node, session + node, "", "1", {}, gateway=gateway)
    row.last_seen = datetime.now(UTC) - timedelta(seconds=silent_s)


def alive(database: Database) -> set[str]:
    """Nodes that the market shows as alive; the same everywhere."""
    with database.transaction() as tx:
        rows = queries.node_page(tx, None, 10)
        shown = {out.node for out in (node_out(row, None) for row in rows) if out.liveness == "ALIVE"}
        assert shown == {row.address for row in nodes.connected(tx)}
        assert shown == {row.address for row in rows if row.connected}
        assert len(shown) == queries.market_facts(tx).nodes_alive
    return shown


def test_nodes_of_a_gateway_that_is_gone_are_cut_off_until_they_are_heard(database: Database) -> None:
    with database.transaction() as tx:
        admit(tx, ONE, 1, silent_s=3)
        admit(tx, TWO, 2, silent_s=3)
        admit(tx, THREE, None, silent_s=3)
    with gateway_up(database, 1), database.transaction() as tx:
        assert gateways.present(tx) == {1}
        assert gateways.sever_orphans(tx) == 1
    assert alive(database) == {ONE, THREE}
    with database.transaction() as tx:
        assert gateways.sever_orphans(tx) == 1, "the other gateway is gone, too, and nobody is cut off twice"
    assert alive(database) == {THREE}
    with database.transaction() as tx:
        assert nodes.seen(tx, ONE, "s" + ONE), "its gateway had lost the database only"
        admit(tx, TWO, 3, "anew")
        rows = [tx.get_one(NodeRow, node, populate_existing=True) for node in (ONE, TWO)]
        assert [(row.losses, row.disconnected_at) for row in rows] == [(0, None)] * 2
    assert alive(database) == {ONE, TWO, THREE}


def test_a_node_that_is_heard_is_not_cut_off_whatever_became_of_its_gateways_lock(database: Database) -> None:
    with database.transaction() as tx:
        admit(tx, ONE, 1, silent_s=0.5)
        assert gateways.sever_orphans(tx) == 0
    assert alive(database) == {ONE}


def test_the_end_of_an_older_session_does_not_cut_off_the_newer(database: Database) -> None:
    with database.transaction() as tx:
        admit(tx, ONE, 1)
        admit(tx, TWO, 1, "old")
        admit(tx, TWO, 1, "new")
        gateways.sever(tx, "s" + ONE)
        gateways.sever(tx, "old" + TWO)
    assert alive(database) == {TWO}
