"""The order that a launch signs."""

from types import SimpleNamespace
from typing import Any

import pytest

from everlease.cli.orders import make_order
from everlease.wire.jobfile import JobFile

SUGGESTED = {"min_collateral": 1, "max_silence": 5, "max_epochs": 100, "epoch_fee": 0}


@pytest.mark.parametrize(("recoveries", "leases"), [(10, 100), (40, 164), (1000, 4004)])
def test_an_order_has_room_for_leases_that_come_to_nothing(recoveries: int, leases: int) -> None:
    job = JobFile.model_validate(
        {
            "name": "a",
            "image": "b",
            "max_price_per_hour": "0.5",
            "deposit": "1",
            "recovery": {"max_recoveries": recoveries},
        }
    )
    market: Any = SimpleNamespace(suggested=SUGGESTED, watcher="0x" + "bb" * 20)
    spec = job.spec("sha256:" + "ab" * 32, "0")
    assert make_order(job, spec, market, "0x" + "aa" * 20, 1000).max_epochs == leases
