"""Which checkpoints of a job are kept: what the present host commits never pushes out what was there before it."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from everlease.domain.retention import PROVED_S, Bounds, Point, Tenure, kept

A, B, C = "A", "B", "C"
BOUNDS = Bounds(newest=3, points=4, superseded=2, size=1000)


def point(seq: int, provider: str, fence: int, size: int = 1) -> Point:
    return Point(seq, f"m{seq}", provider, fence, size)


def tenure(fence: int, provider: str, start: int, earned_s: float = 0.0) -> Tenure:
    return Tenure(fence, provider, f"m{start}" if start else None, start, earned_s)


def chain(*authors: tuple[str, int, int]) -> list[Point]:
    """Checkpoints 1, 2, …: of each (provider, fence) so many."""
    found: list[Point] = []
    for provider, fence, count in authors:
        found += [point(len(found) + 1 + place, provider, fence) for place in range(count)]
    return found


def test_a_thousand_junk_commits_leave_the_restore_point() -> None:
    points = chain((A, 1, 5), (B, 2, 1000))
    tenures = [tenure(1, A, 0), tenure(2, B, 5)]
    assert kept(points, tenures, "m1005", BOUNDS) == {5, 1003, 1004, 1005}
    own_day = [tenure(1, A, 0, PROVED_S), tenure(2, B, 5, 10 * PROVED_S)]
    assert 5 in kept(points, own_day, "m1005", BOUNDS), "nor does the host's own service, nor what came before"


def test_a_restore_point_may_go_once_another_provider_ran_a_day_from_a_later_one() -> None:
    points = chain((A, 1, 2), (B, 2, 2), (C, 3, 4))
    tenures = [tenure(1, A, 0), tenure(2, B, 2), tenure(3, C, 4, PROVED_S - 1)]
    assert kept(points, tenures, "m8", BOUNDS) == {2, 4, 6, 7, 8}
    assert kept(points, [*tenures[:2], replace(tenures[2], earned_s=PROVED_S)], "m8", BOUNDS) == {4, 6, 7, 8}
    off_line = [*tenures[:2], replace(tenures[2], earned_s=PROVED_S, restore_seq=0)]
    assert 2 in kept(points, off_line, "m8", BOUNDS), "a day from what the job went back from proves nothing"


def test_the_newest_of_the_provider_before_is_kept_where_nobody_started_from_it() -> None:
    points = chain((A, 1, 4), (B, 2, 5))
    assert kept(points, [tenure(1, A, 0), tenure(2, B, 2)], "m9", BOUNDS) == {2, 4, 7, 8, 9}


def test_where_the_newest_host_started_is_kept_though_its_own_provider_made_it() -> None:
    points = chain((A, 1, 4), (A, 2, 5))
    assert kept(points, [tenure(1, A, 0), tenure(2, A, 3)], "m9", BOUNDS) == {3, 7, 8, 9}


def test_accomplices_push_out_neither_the_oldest_nor_the_newest_restore_point() -> None:
    handed = [(f"P{place}", place, 1) for place in range(1, 21)]
    tenures = [tenure(fence, provider, fence - 1) for provider, fence, _ in handed]
    found = kept(chain(*handed), tenures, "m20", BOUNDS)
    assert found == {1, 2, 18, 19, 20}
    assert 1 in found


def test_what_the_tenant_went_back_from_is_kept_up_to_a_number() -> None:
    points = [point(seq, A, 1) for seq in (1, 2)] + [replace(point(seq, B, 2), superseded=True) for seq in (3, 4, 5)]
    assert kept(points, [tenure(1, A, 0)], "m2", BOUNDS) == {1, 2, 4, 5}


def test_of_what_the_job_went_back_from_the_work_that_others_went_on_from_is_kept_first() -> None:
    """A wrote 1 to 100, B junk from there; the tenant tries 3 first."""
    points = [replace(it, superseded=it.seq > 3) for it in chain((A, 1, 100), (B, 2, 100))]
    found = kept(points, [tenure(1, A, 0), tenure(2, B, 100)], "m3", BOUNDS)
    assert found == {1, 2, 3, 100, 200}
    nobody_started = kept(points, [tenure(1, A, 0)], "m3", BOUNDS)
    assert nobody_started == found, "the newest of each provider stays as well"
    handed = [replace(it, superseded=True) for it in chain((A, 1, 50), (B, 2, 50), (A, 3, 50))]
    assert kept(handed, [tenure(1, A, 0), tenure(2, B, 50), tenure(3, A, 100)], None, BOUNDS) == {50, 150}


@settings(deadline=None)
@given(
    flags=st.lists(st.tuples(st.sampled_from([A, B, C]), st.booleans(), st.booleans()), min_size=1, max_size=40),
    starts=st.sets(st.integers(1, 40)),
    size=st.integers(0, 400),
)
def test_what_is_aside_is_bounded_and_a_second_sweep_takes_nothing_more(
    flags: list[tuple[str, bool, bool]], starts: set[int], size: int
) -> None:
    points = [
        replace(point(seq, who, seq, size), superseded=superseded, final=final)
        for seq, (who, superseded, final) in enumerate(flags, 1)
    ]
    head = next((f"m{it.seq}" for it in reversed(points) if not it.superseded), None)
    tenures = [tenure(seq + 1, C, seq) for seq in sorted(starts)]
    found = kept(points, tenures, head, BOUNDS)
    left = [it for it in points if it.seq in found]
    assert sum(it.superseded for it in left) <= BOUNDS.superseded
    assert all(not it.final or it.superseded or it.manifest == head for it in left)
    assert kept(left, tenures, head, BOUNDS) == found


def test_outputs_that_were_set_aside_stay_beside_their_providers_newest_program() -> None:
    points = [replace(it, superseded=it.seq > 1, final=it.seq > 3) for it in chain((A, 1, 9))]
    assert kept(points, [tenure(1, A, 0)], "m1", BOUNDS) == {1, 3, 9}


def test_outputs_take_no_place_of_a_checkpoint_that_the_program_can_go_on_from() -> None:
    """However many its host commits before it says that the job is over."""
    points = [replace(it, final=it.seq > 4) for it in chain((A, 1, 10))]
    assert kept(points, [tenure(1, A, 0)], "m10", BOUNDS) == {3, 4, 10}


def test_bytes_are_bounded_and_what_the_present_host_made_goes_first() -> None:
    points = [point(1, A, 1, 600), *(point(seq, B, 2, 300) for seq in range(2, 6)), point(6, B, 2, 10**9)]
    tenures = [tenure(1, A, 0), tenure(2, B, 1)]
    assert kept(points, tenures, "m6", BOUNDS) == {1, 5, 6}, "the head counts for nothing, whatever it says it weighs"
    assert kept(points, tenures, "m6", replace(BOUNDS, size=0)) == {1, 6}


@settings(deadline=None)
@given(
    authors=st.lists(st.tuples(st.sampled_from([A, B, C, "D"]), st.integers(1, 12)), min_size=1, max_size=12),
    sizes=st.integers(0, 400),
    data=st.data(),
)
def test_kept_is_bounded_steady_and_blind_to_more_junk(
    authors: list[tuple[str, int]], sizes: int, data: st.DataObject
) -> None:
    points = [replace(it, size=sizes) for it in chain(*((who, fence, n) for fence, (who, n) in enumerate(authors, 1)))]
    tenures, start = [], 0
    for fence, (who, count) in enumerate(authors, 1):
        tenures.append(tenure(fence, who, start, data.draw(st.sampled_from([0.0, PROVED_S]))))
        start += count
    head = points[-1]
    found = kept(points, tenures, head.manifest, BOUNDS)
    assert head.seq in found
    assert len(found) <= BOUNDS.newest + BOUNDS.points + BOUNDS.superseded
    assert sum(it.size for it in points if it.seq in found and it is not head) <= max(BOUNDS.size, sizes)
    left = [it for it in points if it.seq in found]
    assert kept(left, tenures, head.manifest, BOUNDS) == found, "a second sweep takes nothing more"
    last = tenures[-1]
    junk = [point(head.seq + more, last.provider, last.fence, sizes) for more in range(1, 30)]
    after = kept([*points, *junk], tenures, junk[-1].manifest, BOUNDS)
    earlier = {it.seq for it in points if it.fence < last.fence}
    newest = {it.seq for it in points[-BOUNDS.newest :]}
    assert found & earlier - newest <= after, "only the newest, which nobody started from, give way"
