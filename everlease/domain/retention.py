"""Which checkpoints of a job are kept. Pure; sizes are logical bytes, before compression and blocks that are shared.

The host that has the job now commits what it likes, so nothing that it commits may push out what was there before it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

PROVED_S = 86_400.0
"""Seconds that another provider has to serve from later checkpoints before an earlier restore point may go."""


@dataclass(frozen=True, slots=True)
class Point:
    """A checkpoint that is there and sound. ``provider``: its author's; ``superseded``: no ancestor of the head, since
    the job went back to before it; ``final``: it holds outputs alone.
    """

    seq: int
    manifest: str
    provider: str
    fence: int
    size: int
    superseded: bool = False
    final: bool = False


@dataclass(frozen=True, slots=True)
class Tenure:
    """An award that started. ``restore_seq``: where it started, 0 where that is no ancestor of the head any more."""

    fence: int
    provider: str
    restore_manifest: str | None
    restore_seq: int
    earned_s: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """Per job: the ``newest`` checkpoints, head included, of which those before it hold the program; ``points`` that
    hosts started from; ``superseded`` ones; and the bytes of all but the head. The order bounds the bytes of each.
    """

    newest: int = 3
    points: int = 8
    superseded: int = 8
    size: int = 512 << 30


def kept(points: Collection[Point], tenures: Sequence[Tenure], head: str | None, bounds: Bounds) -> frozenset[int]:
    """The numbers of the checkpoints to keep: the head always; restore points, oldest and newest by turns; the newest
    before the head from which the program can go on; then of those that the job went back from what hosts started from
    and the newest of each provider, then the newest.

    Within ``bounds.size``, but for the first restore point, which is kept whatever its size.
    """
    line = sorted((it for it in points if not it.superseded and not it.final), key=lambda it: it.seq)
    aside = _by_worth(sorted((it for it in points if it.superseded), key=lambda it: it.seq), tenures)
    restore_points = list(_ends(_restore_points(line, tenures), bounds.points))
    newest = [it for it in reversed(line) if it.manifest != head][: bounds.newest - 1]
    found = {it.seq for it in points if it.manifest == head}
    room = bounds.size
    for place, point in enumerate([*restore_points, *newest, *aside[: bounds.superseded]]):
        first = place == 0 and bool(restore_points)
        if point.seq not in found and (first or point.size <= room):
            found.add(point.seq)
            room -= point.size
    return frozenset(found)


def _restore_points(line: Sequence[Point], tenures: Sequence[Tenure]) -> list[Point]:
    """What hosts started from, and the newest checkpoint of another provider before them, until another provider than
    theirs has proved something later; and whatever the newest host started from. Oldest first.
    """
    served: dict[str, list[Tenure]] = defaultdict(list)
    for tenure in tenures:
        served[tenure.provider].append(tenure)
    found: set[int] = set()
    newest = max((it.fence for it in tenures), default=0)
    for tenure in tenures:
        started = next((it for it in line if it.manifest == tenure.restore_manifest), None)
        earlier = (it for it in reversed(line) if it.fence < tenure.fence and it.provider != tenure.provider)
        before = next(earlier, None)
        wanted = [it for it in (started, before) if it is not None and it.provider != tenure.provider]
        found |= {it.seq for it in wanted if not _proved(it, tenure.provider, served)}
        if started is not None and tenure.fence == newest:
            found.add(started.seq)
    return [it for it in line if it.seq in found]


def _by_worth(aside: Sequence[Point], tenures: Sequence[Tenure]) -> list[Point]:
    """What hosts started from and the newest of each provider, its program's and its outputs, oldest and newest by
    turns; then the rest, newest first. The last host's junk so pushes out no work that others went on from.
    """
    started = {it.restore_manifest for it in tenures}
    newest = {(it.provider, it.final): it.seq for it in aside}
    first = [it for it in aside if it.manifest in started or it.seq == newest[it.provider, it.final]]
    chosen = {it.seq for it in first}
    return [*_ends(first, len(first)), *(it for it in reversed(aside) if it.seq not in chosen)]


def _proved(point: Point, user: str, served: dict[str, list[Tenure]]) -> bool:
    return any(
        sum(it.earned_s for it in tenures if it.restore_seq > point.seq) >= PROVED_S
        for provider, tenures in served.items()
        if provider != user
    )


def _ends(points: list[Point], most: int) -> Iterator[Point]:
    """Oldest, newest, second oldest and so on, at most so many: accomplices push out neither the first nor the last."""
    low, high = 0, len(points) - 1
    for place in range(min(most, len(points))):
        if place % 2 == 0:
            yield points[low]
            low += 1
        else:
            yield points[high]
            high -= 1
