"""Waiting for heads: by subscription where there is one, by the clock where there is none."""

import threading
import time

import pytest

from everlease.chain.heads import HeadWaiter
from tests.support.anvil import Anvil

pytestmark = pytest.mark.anvil


def test_a_new_head_wakes(anvil: Anvil) -> None:
    heads = HeadWaiter(anvil.ws_url, poll_s=30)
    timer = threading.Timer(0.3, anvil.mine)
    timer.start()
    started = time.monotonic()
    heads.wait()
    assert heads.subscribed
    assert time.monotonic() - started < 25
    timer.join()
    heads.close()


@pytest.mark.parametrize("url", [None, "ws://127.0.0.1:1"])
def test_without_an_endpoint_the_clock_wakes(url: str | None) -> None:
    heads = HeadWaiter(url, poll_s=0.05)
    heads.wait()
    assert not heads.subscribed


def test_a_lost_endpoint_is_no_error(anvil: Anvil) -> None:
    import os
    import signal

    heads = HeadWaiter(anvil.ws_url, poll_s=0.1)
    heads.wait()
    assert heads.subscribed
    os.kill(anvil.pid, signal.SIGKILL)
    for _ in range(3):
        heads.wait()
    assert not heads.subscribed
