"""A stack of which some processes died: those are started again just as they were, the others are left alone."""

from collections.abc import Callable
from urllib.parse import urlsplit

from everlease.stack import servers
from everlease.stack.errors import NotReady
from everlease.stack.plan import StackState
from everlease.stack.ports import listening
from everlease.stack.processes import ProcessRecord, ProcessTable
from everlease.stack.services import READY_S, answers

_TRIES = 3
"""PostgreSQL refuses to start while what a killed one left behind is still ending."""

Connected = Callable[[str], bool]


def heal(table: ProcessTable, state: StackState, connected: Connected) -> list[str]:
    """Start every recorded process that has ended, in the order of the first start; their names.

    ``connected`` says by an agent's process name whether its node is in the market. Raises NotReady.
    """
    dead = [record for record in table.records() if not table.alive(record)]
    for record in dead:
        _start_again(table, record, lambda record=record: _ready(record, state, connected))  # type: ignore[misc]
    return [record.name for record in dead]


def _start_again(table: ProcessTable, record: ProcessRecord, ready: Callable[[], bool]) -> None:
    for last in (False,) * (_TRIES - 1) + (True,):
        record = table.restart(record)
        try:
            table.await_ready(record, ready, timeout=READY_S)
            return
        except NotReady:
            if last or table.alive(record):
                raise


def _ready(record: ProcessRecord, state: StackState, connected: Connected) -> bool:
    name = record.name
    if name == "anvil":
        place = urlsplit(state.rpc_url)
        return listening(place.hostname or "", place.port or 0)
    if name == "postgres":
        return servers.postgres_answers(state.database_url.replace("+psycopg", "", 1))
    if name == "valkey":
        return servers.valkey_answers(state.broker_url)
    if name in ("indexer", "marketplace"):
        return answers(f"{state.explorer_url if name == 'indexer' else state.market_url}/readyz")
    if name.startswith("agent-"):
        return connected(name)
    # Worker, beat and monitor have no address: they wait for database and broker by themselves.
    return True
