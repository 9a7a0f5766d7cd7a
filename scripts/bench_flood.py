"""The strangers of bench_gateway.py: one address each, as fast as their share of a core allows, until killed.

They know the protocol and hold no key that counts. Each kind is one way to cost a gateway more than one spends.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from everlease.chain.keys import Key
from everlease.chain.typed_data import Domain, NodeHello, node_hello_digest

MEGABYTES_4 = 4 << 20
SEALING_KEY = "A" * 43 + "="


async def silent(socket: ClientConnection, challenge: dict[str, object]) -> None:
    """Hold a place."""
    await asyncio.sleep(8)


async def leave(socket: ClientConnection, challenge: dict[str, object]) -> None:
    """Connect again and again."""


async def large(socket: ClientConnection, challenge: dict[str, object]) -> None:
    """4 MiB of facts: about 4 kB on the wire where the gateway agrees to compression."""
    await socket.send(json.dumps({"type": "hello", "facts": {"a": [1] * (MEGABYTES_4 // 3)}}))
    await socket.recv()


async def deep(socket: ClientConnection, challenge: dict[str, object]) -> None:
    """As large as a hello may be, made of many small things, with a signature of nobody."""
    facts = {str(number): [[], {}] for number in range(6000)}
    await socket.send(json.dumps(hello(challenge, facts, "0x" + secrets.token_hex(64) + "1b")))
    await socket.recv()


async def signed(socket: ClientConnection, challenge: dict[str, object]) -> None:
    """Rightly signed by a key that was just made: the mirror and the chain have to be asked."""
    key = Key.of(secrets.token_bytes(32))
    words = NodeHello(str(challenge["nonce"]), key.address, "0x" + "02" * 20, bytes(32))
    digest = node_hello_digest(Domain(int(str(challenge["chain_id"])), str(challenge["escrow"])), words)
    await socket.send(json.dumps(hello(challenge, {}, key.sign(digest), key.address)))
    await socket.recv()


async def pings(socket: ClientConnection, challenge: dict[str, object]) -> None:
    """Frames that no application sees."""
    frame = b"\x89\x80\0\0\0\0"
    for _ in range(50):
        if socket.transport.is_closing():
            return
        socket.transport.write(frame * 10_000)
        await asyncio.sleep(0.01)


def hello(challenge: dict[str, object], facts: object, signature: str, node: str = "0x" + "01" * 20) -> object:
    """A hello with these facts."""
    fields = {"nonce": challenge["nonce"], "sealing_key": SEALING_KEY, "version": "flood", "facts": facts}
    return {"type": "hello", "node": node, "provider": "0x" + "02" * 20, **fields, "signature": signature}


KINDS = {kind.__name__: kind for kind in (silent, leave, large, deep, signed, pings)}


async def one(url: str, source: str, kinds: list[str]) -> None:
    """One connection after the other."""
    while True:
        kind = KINDS[random.choice(kinds)]
        with suppress(OSError, TimeoutError, WebSocketException, EOFError, RuntimeError):
            async with connect(
                url, proxy=None, open_timeout=5, close_timeout=0.1, ping_interval=None, local_addr=(source, 0)
            ) as socket:
                challenge = json.loads(await socket.recv())
                async with asyncio.timeout(10):
                    await kind(socket, challenge)
        await asyncio.sleep(0)


async def mute(host: str, port: int, source: str) -> None:
    """A connection that never even says what it wants."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
            await asyncio.sleep(20)
            writer.close()
        await asyncio.sleep(0.1)


async def flood(arguments: argparse.Namespace) -> None:
    """All connections of this address."""
    host, port = arguments.url.split("/")[2].split(":")
    works = [one(arguments.url, arguments.source, arguments.kinds) for _ in range(arguments.connections)]
    await asyncio.gather(*works, *(mute(host, int(port), arguments.source) for _ in range(16)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("source")
    parser.add_argument("kinds", nargs="+", choices=list(KINDS))
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--core", type=int, default=None)
    chosen = parser.parse_args()
    os.nice(19 - os.nice(0))
    if chosen.core is not None:
        os.sched_setaffinity(0, {chosen.core})
    asyncio.run(flood(chosen))
