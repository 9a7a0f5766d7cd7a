"""A small gateway that speaks the node protocol for tests: real sockets and signatures, state in memory."""

import asyncio
import base64
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nacl.public import PublicKey, SealedBox
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from everlease.chain.deployment import Deployment
from everlease.chain.typed_data import NodeHello, node_hello_digest, recover
from everlease.store.manifest import committed_by
from everlease.store.tokens import Scope, issue_token
from everlease.wire.commands import Command, CommandResult
from everlease.wire.node import (
    MAX_FRAME_BYTES,
    BidMessage,
    CallForBids,
    Challenge,
    CommitAnswer,
    CommitCheckpoint,
    Decline,
    Drain,
    FactsMessage,
    Goodbye,
    Heartbeat,
    Hello,
    JobNotice,
    LogChunk,
    ReceiptRequest,
    Restarting,
    ResultMessage,
    TokenRequest,
    Welcome,
    from_node,
)

SECRET = b"s" * 32


@dataclass
class Node:
    """One session of one node."""

    socket: ServerConnection
    hello: Hello
    sent: int = 0
    got: int = 0


@dataclass
class Gateway:
    """`award` sets a job's fence and node; everything the nodes say is kept and can be waited for with `until`."""

    deployment: Deployment
    fence_after: float = 4.0
    port: int = 0
    nodes: dict[str, Node] = field(default_factory=dict)
    owner: dict[str, tuple[str, int]] = field(default_factory=dict)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    authors: dict[str, str] = field(default_factory=dict)
    keys: dict[tuple[str, int], bytes] = field(default_factory=dict)
    results: dict[tuple[str, str], CommandResult] = field(default_factory=dict)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    commits: list[CommitCheckpoint] = field(default_factory=list)
    notices: list[JobNotice] = field(default_factory=list)
    bids: dict[int, BidMessage | Decline] = field(default_factory=dict)
    beats: dict[str, Heartbeat] = field(default_factory=dict)
    facts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    output: dict[tuple[str, int], bytearray] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    draining: set[str] = field(default_factory=set)
    restarting: set[str] = field(default_factory=set)
    goodbyes: list[Goodbye] = field(default_factory=list)
    unanswered: dict[tuple[str, str], tuple[str, Command]] = field(default_factory=dict)
    hung_up: bool = False
    mute_commits: bool = False
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(ready),), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    # --- what tests do ---

    def until(self, condition: Callable[["Gateway"], Any], seconds: float = 60) -> Any:
        """Wait for something to become true; its value."""
        give_up = time.monotonic() + seconds
        with self._changed:
            while True:
                found = condition(self)
                assert not self.errors, self.errors
                if found:
                    return found
                left = give_up - time.monotonic()
                assert left > 0, "it did not happen in time"
                self._changed.wait(min(left, 0.2))

    def command(self, node: str, command: Command) -> None:
        """Send a command, now and at each reconnect until it is answered."""
        with self._changed:
            self.unanswered[(command.job_id, command.step)] = (node, command)
        self._soon(self._dispatch(node))

    def do(self, node: str, command: Command, seconds: float = 90) -> CommandResult:
        """Send a command and wait for its result."""
        self.command(node, command)
        result: CommandResult = self.until(lambda g: g.results.get((command.job_id, command.step)), seconds)
        return result

    def call(self, node: str, call: CallForBids) -> BidMessage | Decline:
        """Ask one node to bid."""
        self._soon(self._send(self.nodes[node], call))
        answer: BidMessage | Decline = self.until(lambda g: g.bids.get(call.auction_id), 30)
        return answer

    def tell(self, node: str, message: dict[str, Any]) -> None:
        """Send any message."""
        self._soon(self._send(self.nodes[node], message))

    def token(self, job_id: str) -> str:
        """A store token."""
        scopes = (Scope.READ, Scope.WRITE)
        return issue_token(
            SECRET, subject="test", scopes=scopes, session=job_id, now=time.time(), ttl_s=3600, job=job_id
        )

    def sealed(self, node: str, job_id: str, generation: int) -> str:
        """A generation's key, made at first use, sealed to a node; generation 0 is the dedup secret."""
        key = self.keys.setdefault((job_id, generation), secrets.token_bytes(32))
        public = PublicKey(base64.b64decode(self.nodes[node].hello.sealing_key))
        return base64.b64encode(SealedBox(public).encrypt(key)).decode()

    def hang_up(self, hung_up: bool = True) -> None:
        """Cut all nodes off, and refuse new connections, until called with False."""
        self.hung_up = hung_up
        if hung_up:
            self._soon(self._close_all())

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    # --- the protocol ---

    def _soon(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _close_all(self) -> None:
        for node in list(self.nodes.values()):
            node.socket.transport.abort()

    async def _serve(self, ready: threading.Event) -> None:
        async with serve(self._session, "127.0.0.1", self.port, max_size=MAX_FRAME_BYTES, ping_interval=None) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            ready.set()
            await self._stop.wait()

    async def _session(self, socket: ServerConnection) -> None:
        if self.hung_up:
            return
        try:
            node = await self._admit(socket)
            await self._dispatch(node.hello.node)
            async for text in socket:
                await self._handle(node, str(text))
        except ConnectionClosed:
            pass
        except Exception as error:
            with self._changed:
                self.errors.append(repr(error))
            raise
        finally:
            with self._changed:
                for address, other in list(self.nodes.items()):
                    if other.socket is socket:
                        del self.nodes[address]
                self._changed.notify_all()

    async def _admit(self, socket: ServerConnection) -> Node:
        nonce = "0x" + secrets.token_hex(32)
        terms = {"chain_id": self.deployment.chain_id, "escrow": self.deployment.escrow}
        challenge = Challenge(nonce=nonce, **terms, fence_after=self.fence_after, heartbeat_every=0.5)
        await socket.send(challenge.model_dump_json())
        hello = Hello.model_validate_json(await socket.recv())
        signed = NodeHello(nonce, hello.node, hello.provider, base64.b64decode(hello.sealing_key))
        assert recover(node_hello_digest(self.deployment.escrow_domain, signed), hello.signature) == hello.node
        confirmed = {c.job_id: c.fence for c in hello.containers if self.owner.get(c.job_id) == (hello.node, c.fence)}
        dropped = [c.job_id for c in hello.containers if c.job_id not in confirmed]
        node = Node(socket, hello)
        await socket.send(Welcome(session="s", confirmed=confirmed, dropped=dropped).model_dump_json())
        with self._changed:
            self.nodes[hello.node] = node
            self._changed.notify_all()
        return node

    async def _dispatch(self, address: str) -> None:
        node = self.nodes.get(address)
        if node is not None:
            for target, command in list(self.unanswered.values()):
                if target == address:
                    await self._send(node, {"type": "command", "command": command.model_dump(mode="json")})

    async def _send(self, node: Node, message: Any) -> None:
        body = message if isinstance(message, dict) else message.model_dump(mode="json")
        node.sent += 1
        # An agent that was killed a moment ago gets it again when it is back, as from the real gateway.
        with suppress(ConnectionClosed):
            await node.socket.send(json.dumps(body | {"seq": node.sent}))

    async def _handle(self, node: Node, text: str) -> None:
        message = from_node.validate_json(text)
        assert message.seq == node.got + 1, "numbers have gaps"
        node.got = message.seq
        with self._changed:
            answer = self._note(node.hello.node, message)
            self._changed.notify_all()
        if answer is not None:
            await self._send(node, answer)

    def _current(self, address: str, job_id: str, fence: int, kind: str) -> bool:
        current = self.owner.get(job_id) == (address, fence)
        if not current:
            self.refused[kind] += 1
        return current

    def _note(self, address: str, message: Any) -> dict[str, Any] | None:
        match message:
            case Heartbeat():
                self.beats[address] = message
                refused = [b.job_id for b in message.jobs if not self._current(address, b.job_id, b.fence, "heartbeat")]
                return {"type": "heartbeat_ack", "ack": message.seq, "refused": refused}
            case ResultMessage(result=result):
                self.answers[(result.job_id, result.step)] += 1
                self.results.setdefault((result.job_id, result.step), result)
                self.unanswered.pop((result.job_id, result.step), None)
            case CommitCheckpoint():
                return self._commit(address, message)
            case JobNotice():
                self.notices.append(message)
            case LogChunk():
                kept = self.output.setdefault((message.job_id, message.fence), bytearray())
                assert message.offset <= len(kept), "output has a hole"
                kept += message.text.encode()[len(kept) - message.offset :]
            case BidMessage() | Decline():
                self.bids[message.auction_id] = message
            case TokenRequest():
                grant = {"ok": True, "token": self.token(message.job_id)}
                return {"type": "token_grant", "request": message.request, **grant}
            case ReceiptRequest():
                if not self._current(address, message.job_id, message.fence, "receipt"):
                    return {
                        "type": "refusal",
                        "of": "receipt_request",
                        "job_id": message.job_id,
                        "reason": "stale fence",
                    }
            case FactsMessage(facts=facts):
                self.facts.setdefault(address, []).append(facts)
            case Drain():
                self.draining.add(address)
            case Restarting():
                self.restarting.add(address)
            case Goodbye():
                self.goodbyes.append(message)
        return None

    def _commit(self, address: str, message: CommitCheckpoint) -> dict[str, Any] | None:
        if self.mute_commits:
            return None
        answer = {"type": "commit_answer", "request": message.request}
        assert committed_by(message.manifest_digest, message.signature).lower() == address
        seq, head = self.heads.get(message.job_id, (0, None))
        if not self._current(address, message.job_id, message.fence, "checkpoint"):
            return answer | {"ok": False, "fenced": True, "error": "stale fence"}
        if head != message.manifest:
            if (message.checkpoint_seq, message.predecessor) != (seq + 1, head):
                return answer | {"ok": False, "error": "it does not follow the head"}
            self.heads[message.job_id] = (message.checkpoint_seq, message.manifest)
            self.authors[message.manifest] = address
            self.commits.append(message)
        return CommitAnswer(seq=0, request=message.request, ok=True, head=message.manifest).model_dump(mode="json")
