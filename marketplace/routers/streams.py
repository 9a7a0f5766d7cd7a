"""Logs and events of a job: a page of JSON, or server-sent events that go on where Last-Event-ID says."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from everlease.db import Tx, jobs, logs
from everlease.wire.http import EventList, LogList
from marketplace.dependencies import CallerDep, JobIdDep, PartsDep
from marketplace.followers import Follower
from marketplace.parts import Parts
from marketplace.problems import ProblemError
from marketplace.routers.jobs import own_job
from marketplace.services.presentation import event_out, log_out

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])
_PAGE = 200
_KEEP_ALIVE_S = 15.0
_STREAM = "text/event-stream"
_ENDED_GRACE_S = 2.0

After = Annotated[int, Query(ge=0, le=2**62, description="continue after this id")]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", pattern=r"^[0-9]{1,18}$")]
Read = Callable[[Tx, str, int, int], Sequence[Any]]
Show = Callable[[Any], BaseModel]


@router.get("/events", response_model=EventList, responses={200: {"content": {_STREAM: {}}}})
async def events(
    job_id: JobIdDep,
    request: Request,
    parts: PartsDep,
    caller: CallerDep,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    last_event_id: LastEventId = None,
) -> Response:
    """The job's history. With ``Accept: text/event-stream`` it is followed until the job has ended."""
    await to_thread.run_sync(_check_owner, parts, job_id, caller)
    start = int(last_event_id) if last_event_id else after
    if _wants_stream(request):
        return await _stream(parts, job_id, caller, start, logs.history, event_out, "event")
    rows = await to_thread.run_sync(_read, parts, logs.history, job_id, start, limit)
    page = EventList(items=[event_out(row) for row in rows], next_id=rows[-1].id if rows else start)
    return JSONResponse(page.model_dump(mode="json"))


@router.get("/logs", response_model=LogList, responses={200: {"content": {_STREAM: {}}}})
async def output(
    job_id: JobIdDep,
    request: Request,
    parts: PartsDep,
    caller: CallerDep,
    after: After = 0,
    tail: Annotated[int | None, Query(ge=0, le=10_000, description="begin with the last pieces")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    last_event_id: LastEventId = None,
) -> Response:
    """The job's output, across all its hosts. With ``Accept: text/event-stream`` it is followed."""
    await to_thread.run_sync(_check_owner, parts, job_id, caller)
    start = int(last_event_id) if last_event_id else after
    if tail is not None and not last_event_id:
        start = await to_thread.run_sync(_tail_start, parts, job_id, tail)
    if _wants_stream(request):
        return await _stream(parts, job_id, caller, start, logs.page, log_out, "log")
    rows = await to_thread.run_sync(_read, parts, logs.page, job_id, start, limit)
    page = LogList(items=[log_out(row) for row in rows], next_id=rows[-1].id if rows else start)
    return JSONResponse(page.model_dump(mode="json"))


def _wants_stream(request: Request) -> bool:
    return _STREAM in request.headers.get("accept", "")


class _Stream(StreamingResponse):
    """Holds a follower's place until it ends, even if it never began."""

    def __init__(self, follower: Follower, content: AsyncIterator[bytes]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type=_STREAM, headers=headers)
        self._follower = follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._follower.leave()


async def _stream(parts: Parts, job_id: str, caller: str, start: int, read: Read, show: Show, name: str) -> Response:
    """The stream, or 204 where there will be nothing more: that tells an EventSource not to come again."""
    ended = await to_thread.run_sync(_ended_for, parts, job_id)
    over = ended is not None and ended > _ENDED_GRACE_S
    if over and not await to_thread.run_sync(_read, parts, read, job_id, start, 1):
        return Response(status_code=204)
    follower = parts.followers.enter(job_id, caller)
    if follower is None:
        raise ProblemError(429, "too-many-streams", "too many streams are open: close one of them", Retry_After="5")
    return _Stream(follower, _follow(parts, follower, start, read, show, name))


async def _follow(
    parts: Parts, follower: Follower, start: int, read: Read, show: Show, name: str
) -> AsyncIterator[bytes]:
    """Catch up by id, then wait for news; a wake-up that came while we read is not lost."""
    followers, job_id, news, position = parts.followers, follower.job_id, follower.news, start
    with parts.metrics.followers.track_inprogress():
        yield b"retry: 1000\n\n"
        while not followers.closing.is_set():
            news.clear()
            # Whether it has ended is asked first: what was written before the end is then read below.
            ended = await to_thread.run_sync(_ended_for, parts, job_id)
            rows = await to_thread.run_sync(_read, parts, read, job_id, position, _PAGE)
            for row in rows:
                position = row.id
                yield _frame(row.id, name, show(row))
            if len(rows) == _PAGE:
                continue
            if ended is not None and ended > _ENDED_GRACE_S:
                return
            try:
                async with asyncio.timeout(_KEEP_ALIVE_S if ended is None else _ENDED_GRACE_S):
                    await news.wait()
            except TimeoutError:
                yield b": still here\n\n"


def _frame(row_id: int, name: str, item: BaseModel) -> bytes:
    return f"id: {row_id}\nevent: {name}\ndata: {json.dumps(item.model_dump(mode='json'))}\n\n".encode()


def _check_owner(parts: Parts, job_id: str, caller: str) -> None:
    with parts.db.transaction() as tx:
        own_job(tx, job_id, caller)


def _read(parts: Parts, read: Read, job_id: str, after: int, limit: int) -> Sequence[Any]:
    with parts.db.transaction() as tx:
        return read(tx, job_id, after, limit)


def _tail_start(parts: Parts, job_id: str, pieces: int) -> int:
    with parts.db.transaction() as tx:
        return logs.tail_start(tx, job_id, pieces)


def _ended_for(parts: Parts, job_id: str) -> float | None:
    """Seconds since the job ended, or None."""
    with parts.db.transaction() as tx:
        ended_at = jobs.get(tx, job_id).ended_at
    return None if ended_at is None else parts.clock() - ended_at.timestamp()
