"""Which tasks an event asks for, and that nothing asks twice in one batch."""

import pytest

from recovery.broker import schedule
from recovery.routes import ADVANCE, PUMP, SWEEP_JOBS, WAKE_MIGRATING, WAKE_WAITING, Task, route, unique

JOB = {"job_id": "0xab"}


@pytest.mark.parametrize(
    ("topic", "payload", "tasks"),
    [
        ("job.created", JOB, [Task(ADVANCE, ("0xab",))]),
        ("chain.changed", JOB, [Task(ADVANCE, ("0xab",))]),
        ("chain.changed", {"job_id": None}, []),
        ("chain.reverted", {"job_id": None}, [Task(SWEEP_JOBS)]),
        ("chain.reverted", JOB, [Task(ADVANCE, ("0xab",))]),
        ("tx.enqueued", JOB, [Task(PUMP)]),
        ("tx.dropped", JOB, [Task(PUMP), Task(ADVANCE, ("0xab",))]),
        ("tx.failed", {"job_id": None}, []),
        ("tx.mined", JOB, []),
        ("tx.reverted", JOB, [Task(ADVANCE, ("0xab",))]),
        ("job.history", JOB, []),
        ("node.connected", {"node": "0x1"}, [Task(WAKE_WAITING)]),
        ("node.restated", {"node": "0x1"}, [Task(WAKE_WAITING)]),
        ("node.disconnected", {"node": "0x1"}, [Task(WAKE_MIGRATING)]),
        ("a.topic.of.tomorrow", JOB, [Task(ADVANCE, ("0xab",))]),
    ],
)
def test_routes(topic: str, payload: dict[str, object], tasks: list[Task]) -> None:
    assert route(topic, payload) == tasks


def test_equal_tasks_of_a_batch_are_one() -> None:
    assert unique([Task(PUMP), Task(ADVANCE, ("a",)), Task(PUMP)]) == [Task(PUMP), Task(ADVANCE, ("a",))]


def test_sweeps_do_not_pile_up() -> None:
    assert all(entry["options"] == {"expires": entry["schedule"]} for entry in schedule().values())
