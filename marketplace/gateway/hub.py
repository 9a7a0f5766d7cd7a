"""The nodes that are connected to this process, and what wakes them: notifications, and a sweep for lost ones."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from anyio import CapacityLimiter, to_thread

from everlease.db import auctions, commands, gateways, jobs, nodes, receipts
from everlease.db.engine import DatabaseUnavailable
from everlease.db.notify import EVERYTHING, listen_async
from everlease.supervision import Alive
from everlease.wire.node import CommandMessage, Ping, Refusal
from marketplace.gateway import bidding, reports
from marketplace.gateway.commands import outgoing
from marketplace.gateway.session import REPLACED, RESTART, NodeSession
from marketplace.parts import Parts

SWEEP_EVERY_S = 2.0
LISTENER = "listener"
SILENT_AT_MOST_S = 60.0
"""The listener hears a tick every 5 s, the sweep begins every 2 s."""
_log = structlog.get_logger("marketplace.gateway")


class Hub:
    """Lives on the event loop; database work runs in threads."""

    def __init__(self, parts: Parts, threads: CapacityLimiter) -> None:
        self._parts = parts
        self._threads = threads
        self._sessions: dict[str, NodeSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.channels: dict[str, Callable[[str], None]] = {
            commands.CHANNEL: self._on_command,
            auctions.CHANNEL: self._on_auction,
            auctions.HELD: self._on_held,
            receipts.CHANNEL: self._on_receipt,
            nodes.PROBE_CHANNEL: self._on_probe,
            jobs.CHANNEL: parts.followers.wake,
        }

    def add(self, session: NodeSession) -> None:
        """A node is admitted: an older connection of it ends, and what waits for it is sent."""
        older = self._sessions.get(session.node)
        if older is not None:
            older.end(REPLACED, "a newer connection of this node took over")
        self._sessions[session.node] = session
        self._parts.metrics.nodes.set(len(self._sessions))
        self.catch_up(session)

    def catch_up(self, session: NodeSession) -> None:
        """Send a node what waits for it and was not sent in this session yet.

        Once at a time: however often it is wished meanwhile, that leads to one more.
        """
        session.catching_up = min(session.catching_up + 1, 2)
        if session.catching_up == 1:
            self._spawn(self._catch_up(session))

    def remove(self, session: NodeSession) -> None:
        """A connection ended."""
        if self._sessions.get(session.node) is session:
            del self._sessions[session.node]
        self._parts.metrics.nodes.set(len(self._sessions))

    def end_all(self) -> None:
        """Send every node away (they connect again elsewhere, or later) and be no gateway any more.

        The monitor must know at once that it is we who are away: until another gateway is there, it judges nobody.
        """
        self._parts.tasks.stop(LISTENER)
        for session in list(self._sessions.values()):
            session.end(RESTART, "the marketplace restarts")

    def resync(self) -> None:
        """Notifications may have been lost: look at everything."""
        self._parts.followers.wake_all()
        for session in list(self._sessions.values()):
            self.catch_up(session)

    def start(self) -> None:
        """Listen and sweep from now on."""
        tasks = self._parts.tasks
        tasks.start(LISTENER, self._listen, silent_at_most_s=SILENT_AT_MOST_S)
        tasks.start("command sweep", self._sweep, silent_at_most_s=SILENT_AT_MOST_S)

    async def _listen(self, alive: Alive) -> None:
        """Turn PostgreSQL's notifications into work, until cancelled."""
        channels = list(self.channels)
        presence = (gateways.LOCK, self._parts.gateway_id)
        async for note in listen_async(self._parts.db.libpq_url, channels, presence=presence):
            alive()
            if note == EVERYTHING:
                self.resync()
            else:
                self.channels[note.channel](note.payload)

    async def _sweep(self, alive: Alive) -> None:
        """Now and then look for commands whose notification was lost, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            for session in list(self._sessions.values()):
                alive()
                await self._guarded(self._send_commands(session))
            alive()

    async def _catch_up(self, session: NodeSession) -> None:
        while session.catching_up:
            await self._guarded(self._send_commands(session))
            await self._guarded(self._send_receipts(session))
            await self._guarded(self._call_for_bids(None, session))
            session.catching_up -= 1

    def _on_command(self, node: str) -> None:
        session = self._sessions.get(node)
        if session is not None:
            self._spawn(self._guarded(self._send_commands(session)))

    def _on_auction(self, payload: str) -> None:
        if self._sessions and payload.isdigit():
            self._spawn(self._guarded(self._call_for_bids(int(payload), None)))

    def _on_held(self, payload: str) -> None:
        if self._sessions and payload.isdigit():
            self._spawn(self._guarded(self._tell_held(int(payload))))

    def _on_receipt(self, node: str) -> None:
        session = self._sessions.get(node)
        if session is not None:
            self._spawn(self._guarded(self._send_receipts(session)))

    def _on_probe(self, node: str) -> None:
        session = self._sessions.get(node)
        if session is not None:
            session.send(Ping(seq=0))

    async def _send_commands(self, session: NodeSession) -> None:
        async with session.dispatching:
            sent = frozenset(session.sent_commands)
            ready = await self._thread(outgoing, session.node, session.sealing_key, sent)
            for command_id, command in ready:
                session.sent_commands.add(command_id)
                session.send(CommandMessage(seq=0, command=command))

    async def _send_receipts(self, session: NodeSession) -> None:
        message = await self._thread(reports.receipts_for, session.node)
        fresh = [item for item in message.receipts if session.is_news(item.receipt.lease_id, item.receipt.seq)]
        if fresh:
            session.send(message.model_copy(update={"receipts": fresh}))

    async def _call_for_bids(self, auction_id: int | None, only: NodeSession | None) -> None:
        """Send open calls to the fitting nodes that are connected here, each once per connection."""
        for call in await self._thread(bidding.calls, auction_id, only.node if only is not None else None):
            for session in [only] if only is not None else list(self._sessions.values()):
                if session.node in call.nodes and call.message.auction_id not in session.asked_auctions:
                    session.asked_auctions.add(call.message.auction_id)
                    session.send(call.message)

    async def _tell_held(self, auction_id: int) -> None:
        """Why their bids did not win this round, to the bidders that are connected here."""
        for bid in await self._thread(bidding.held, auction_id):
            session = self._sessions.get(bid.node)
            if session is not None:
                session.send(Refusal(seq=0, of="bid", job_id=bid.job_id, reason=bid.why))

    async def _thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await to_thread.run_sync(work, self._parts, *arguments, limiter=self._threads)

    async def _guarded(self, work: Awaitable[None]) -> None:
        """A database that is away is no reason to lose a connection; the sweep comes again."""
        try:
            await work
        except DatabaseUnavailable as error:
            _log.warning("database unavailable", reason=str(error))
        except Exception as error:
            _log.error("work for a node failed", exc_info=error)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
