"""Which part handles which message of a session."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from anyio import CapacityLimiter, to_thread

from everlease.db.engine import DatabaseUnavailable
from everlease.wire.node import (
    BidMessage,
    CommitCheckpoint,
    Decline,
    Drain,
    DrainStatus,
    FactsMessage,
    FromNode,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    JobNotice,
    LogChunk,
    Pong,
    ReceiptRequest,
    Refusal,
    Restarting,
    ResultMessage,
    TokenRequest,
)
from marketplace.gateway import bidding, commands, commits, heartbeats, reports
from marketplace.gateway.session import PROTOCOL, REPLACED, RESTART, NodeSession, SessionOver
from marketplace.parts import Parts

MAX_COMMITS_WAITING = 64
BEAT_THREADS, WORK_THREADS = 4, 16
COMMIT_THREADS, CHAIN_THREADS = 8, 2
"""What asks the block store or the chain waits for them in threads of its own: they may hang, and no log waits."""
_log = structlog.get_logger("marketplace.gateway")


class Threads:
    """The gateway's own: what HTTP callers keep busy is never what a node waits for, nor work what a heartbeat does."""

    def __init__(self) -> None:
        self.beats = CapacityLimiter(BEAT_THREADS)
        self.work = CapacityLimiter(WORK_THREADS)
        self.commits = CapacityLimiter(COMMIT_THREADS)
        self.chain = CapacityLimiter(CHAIN_THREADS)


class Dispatcher:
    """Handles the messages of one session, in order; ``commit_queue`` runs beside.

    ``catch_up`` sends it what it was not sent yet: the node may fit by now what it didn't fit before.
    """

    def __init__(
        self,
        parts: Parts,
        session: NodeSession,
        threads: Threads,
        catch_up: Callable[[NodeSession], None],
    ) -> None:
        self._parts = parts
        self._session = session
        self._threads = threads
        self._catch_up = catch_up
        self._commits: asyncio.Queue[CommitCheckpoint] = asyncio.Queue(MAX_COMMITS_WAITING)
        self._bids: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Lock()

    async def handle(self, message: FromNode) -> None:
        """Handle one message; when this returns, it is safe. Raises SessionOver or DatabaseUnavailable."""
        match message:
            case Heartbeat():
                await self._heartbeat(message)
            case FactsMessage():
                if await self._thread(reports.take_facts, self._session.id, message):
                    self._catch_up(self._session)
            case Pong():
                await self._pong()
            case CommitCheckpoint():
                self._enqueue(message)
            case BidMessage():
                self._bid(message)
            case Decline():
                if self._answers(message.auction_id):
                    await self._thread(bidding.take_decline, message)
            case ResultMessage():
                refusal = await self._thread(commands.take_result, message.result)
                self._refuse("command_result", message.result.job_id, refusal)
            case LogChunk():
                self._refuse("log", message.job_id, await self._thread(reports.take_log, message))
            case JobNotice():
                self._refuse("notice", message.job_id, await self._thread(reports.take_notice, message))
            case Drain():
                await self._drain(message)
            case Restarting():
                await self._thread(reports.take_restart, self._session.id)
            case Goodbye():
                await self._thread(reports.take_goodbye, self._session.id, message)
            case TokenRequest():
                self._session.send(await self._thread(reports.grant_token, message))
            case ReceiptRequest():
                found, refusal = await self._thread(reports.find_receipt, message)
                if found is not None:
                    self._session.send(found)
                self._refuse("receipt_request", message.job_id, refusal)

    async def commit_queue(self) -> None:
        """Make commits one after the other, until cancelled: a long look into the store delays no heartbeat."""
        while True:
            message = await self._commits.get()
            try:
                answer = await self._thread(commits.take_commit, message, limiter=self._threads.commits)
            except DatabaseUnavailable as error:
                raise SessionOver(RESTART, "the database is away: send it again") from error
            self._session.send(answer)

    def cancel(self) -> None:
        """Stop what runs beside."""
        for task in self._bids:
            task.cancel()

    async def _heartbeat(self, message: Heartbeat) -> None:
        session, began = self._session, time.monotonic()
        try:
            outcome = await to_thread.run_sync(
                heartbeats.take_heartbeat, self._parts, session.node, session.id, message, limiter=self._threads.beats
            )
        except DatabaseUnavailable as error:
            # Unacknowledged, the node fences itself in time; the connection may live to see the database again.
            _log.warning("heartbeat not recorded", node=session.node, reason=str(error))
            return
        if outcome.replaced:
            raise SessionOver(REPLACED, "a newer connection of this node took over")
        session.send(HeartbeatAck(seq=0, ack=message.seq, refused=list(outcome.refused)))
        if session.draining and session.jobs_left != outcome.jobs_left:
            session.jobs_left = outcome.jobs_left
            session.send(DrainStatus(seq=0, jobs_left=outcome.jobs_left))
        if (took := time.monotonic() - began) > self._parts.settings.heartbeat_every:
            _log.warning("slow heartbeat", node=session.node, seconds=round(took, 3))

    async def _pong(self) -> None:
        if not await self._thread_for_session(heartbeats.take_pong):
            raise SessionOver(REPLACED, "a newer connection of this node took over")

    def _enqueue(self, message: CommitCheckpoint) -> None:
        try:
            self._commits.put_nowait(message)
        except asyncio.QueueFull:
            raise SessionOver(PROTOCOL, "too many commits wait for an answer") from None

    def _answers(self, auction_id: int) -> bool:
        """Whether this node was asked in an auction and has not answered there; from now on it has."""
        if auction_id not in self._session.asked_auctions or auction_id in self._session.answered:
            return False
        self._session.answered.add(auction_id)
        return True

    def _bid(self, message: BidMessage) -> None:
        if len(self._bids) >= MAX_COMMITS_WAITING or not self._answers(message.auction_id):
            self._refuse("bid", None, "this node was not asked in that auction, or has answered")
            return
        task = asyncio.create_task(self._take_bid(message))
        self._bids.add(task)
        task.add_done_callback(self._bids.discard)

    async def _take_bid(self, message: BidMessage) -> None:
        session = self._session
        try:
            judged = await self._thread(bidding.judge, session.provider, message)
            if judged.ask_chain:
                async with self._asking:
                    judged = await self._thread(bidding.ask_chain, message, judged, limiter=self._threads.chain)
            await self._thread(bidding.keep, session.provider, message, judged)
            refusal = judged.refusal
        except Exception as error:
            # Database or chain away: without an answer the auction simply ends by its window.
            _log.warning("bid not taken", node=session.node, reason=str(error))
            session.answered.discard(message.auction_id)
            refusal = "the marketplace could not check the bid"
        self._refuse("bid", None, refusal)

    async def _drain(self, message: Drain) -> None:
        session = self._session
        session.draining = True
        session.jobs_left = await self._thread(reports.take_drain, message)
        session.send(DrainStatus(seq=0, jobs_left=session.jobs_left))

    def _refuse(self, of: str, job_id: str | None, reason: str | None) -> None:
        if reason:
            self._session.send(Refusal(seq=0, of=of, job_id=job_id, reason=reason))

    async def _thread(self, work: Callable[..., Any], *arguments: Any, limiter: CapacityLimiter | None = None) -> Any:
        node = self._session.node
        return await to_thread.run_sync(work, self._parts, node, *arguments, limiter=limiter or self._threads.work)

    async def _thread_for_session(self, work: Callable[..., Any]) -> Any:
        return await to_thread.run_sync(
            work, self._parts, self._session.node, self._session.id, limiter=self._threads.beats
        )
