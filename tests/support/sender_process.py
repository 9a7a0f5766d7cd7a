"""A sender as a process of its own: pumps until the key has nothing in flight, one line of its report per pump.

Arguments: database URL, RPC URL, private key in hex.
"""

import sys
import time

from everlease.chain.keys import Key
from everlease.chain.rpc import RpcChain
from everlease.chain.sender import Sender
from everlease.db import Database
from everlease.db.journal import PostgresJournal
from everlease.domain.transactions import IN_FLIGHT


def main(database_url: str, rpc_url: str, secret: str) -> None:
    """Pump; a pump that hangs keeps the key's lock until the process is killed."""
    key = Key.of(bytes.fromhex(secret))
    journal = PostgresJournal(Database(database_url))
    sender = Sender(RpcChain.connect([rpc_url], timeout=120), journal, {key.address: key})
    while any(row.state in IN_FLIGHT for row in journal.open(key.address)):
        print("busy" if sender.pump(key.address).busy else "pumped", flush=True)
        time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
