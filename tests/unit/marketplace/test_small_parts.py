"""Cursors, rate limits, waits and wishes: the pure and nearly pure parts."""

import asyncio
import threading
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from everlease.chain.keys import Key
from everlease.db import Database
from everlease.domain import jobspec
from everlease.domain.job import JobState
from everlease.wire.spec import SpecModel
from marketplace.followers import MOST_OF_ONE_ACCOUNT, MOST_OF_ONE_JOB, Followers
from marketplace.gateway.admission import backoff
from marketplace.gateway.session import Pace
from marketplace.pages import decode_cursor, encode_cursor
from marketplace.problems import ProblemError
from marketplace.services import wishes
from marketplace.services.signin import WALLETS_AT_ONCE, RateLimit, SignIn, Turns
from marketplace.settings import MarketplaceSettings
from tests.support.marketplace import SPEC


def settings(**changes: object) -> MarketplaceSettings:
    values: dict[str, object] = {
        "deployments": "d.json",
        "rpc_urls": ["http://127.0.0.1:1"],
        "database_url": "postgresql+psycopg://x",
        "watcher": "0x" + "11" * 20,
        "store": "store",
        "store_token_secret": "s" * 32,
        "master_key_file": "master.key",
    }
    return MarketplaceSettings(**(values | changes))  # type: ignore[arg-type]


@given(st.integers(), st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_a_cursor_comes_back_as_it_went(number: int, text: str) -> None:
    assert decode_cursor(encode_cursor(number, text), int, str) == [number, text]


@given(st.text(max_size=60))
def test_a_made_up_cursor_is_a_problem_and_no_crash(text: str) -> None:
    with pytest.raises(ProblemError):
        decode_cursor(text, int, str)


def test_attempts_are_limited_per_client_and_minute() -> None:
    now = [0.0]
    limit = RateLimit(2, lambda: now[0])
    limit.admit("a")
    limit.admit("a")
    limit.admit("b")
    with pytest.raises(ProblemError, match="wait 61 s"):
        limit.admit("a")
    now[0] = 60.0
    limit.admit("a")


def test_each_loss_doubles_the_wait_up_to_a_bound() -> None:
    chosen = settings(shun_base_s=5, shun_max_s=60)
    assert [backoff(chosen, losses) for losses in (0, 1, 2, 3, 4, 5, 10_000)] == [5, 5, 10, 20, 40, 60, 60]


def test_settings_derive_origin_domain_and_store() -> None:
    chosen = settings(public_url="https://market.example/")
    assert chosen.origin == "https://market.example"
    assert chosen.sign_in_domain == "market.example"
    assert chosen.store_url == "https://market.example/store"
    assert chosen.secure_cookies
    assert settings(store="http://store.example/").store_url == "http://store.example"
    with pytest.raises(ValidationError, match="32 bytes"):
        settings(store_token_secret="short")
    assert "ssss" not in repr(chosen)


@pytest.mark.parametrize("wish", wishes.WISHES)
def test_every_wish_is_decided_in_every_state(wish: str) -> None:
    allowed = {state for state in JobState if wishes._makes_sense(state, wish)}
    ended = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    assert allowed & ended == ({JobState.SUCCEEDED, JobState.FAILED} if wish == "resume" else set())
    assert (JobState.RUNNING in allowed) == (wish != "resume")
    for state in (JobState.HIBERNATED, JobState.PARKED, JobState.EXHAUSTED):
        assert (state in allowed) == (wish in ("resume", "cancel"))
    assert (JobState.WAITING_CAPACITY in allowed) == (wish in ("resume", "hibernate", "cancel"))


def test_an_exhausted_job_is_told_of_time_and_leases_too() -> None:
    hint = wishes._hint(JobState.EXHAUSTED)
    assert "'job top-up'" in hint
    assert "'job extend'" in hint


def test_a_spec_on_the_wire_has_the_hash_of_the_domain() -> None:
    spec = SpecModel.model_validate(SPEC).to_domain()
    assert jobspec.from_dict(SPEC) == spec
    assert jobspec.spec_hash(jobspec.from_dict(SPEC)) == jobspec.spec_hash(spec)


def test_followers_are_woken_and_forgotten() -> None:
    async def scene() -> None:
        followers = Followers()
        found = [followers.enter(job, "me") for job in ("a", "a", "b")]
        first, second, other = (follower for follower in found if follower is not None)
        followers.wake("a")
        followers.wake("unknown")
        assert first.news.is_set()
        assert second.news.is_set()
        assert not other.news.is_set()
        followers.close()
        assert other.news.is_set()
        for follower in (first, first, second, other):
            follower.leave()
        assert not followers._of_job
        assert not followers._of_account

    asyncio.run(scene())


def test_streams_are_bounded_by_job_by_account_and_altogether(monkeypatch: pytest.MonkeyPatch) -> None:
    followers = Followers()
    held = [followers.enter("a", "me") for _ in range(MOST_OF_ONE_JOB)]
    assert all(held)
    assert followers.enter("a", "you") is None
    more = [followers.enter(f"job {number}", "me") for number in range(MOST_OF_ONE_ACCOUNT - MOST_OF_ONE_JOB)]
    assert all(more)
    assert followers.enter("another", "me") is None, "one account, however many its jobs"
    assert followers.enter("another", "you") is not None
    monkeypatch.setattr("marketplace.followers.MOST", MOST_OF_ONE_ACCOUNT + 1)
    assert followers.enter("one more", "somebody") is None
    assert held[0] is not None
    held[0].leave()
    assert followers.enter("one more", "somebody") is not None


def test_sign_in_takes_turns_and_keeps_nobody_waiting() -> None:
    turns = Turns(2)
    with turns.turn(), turns.turn(), pytest.raises(ProblemError, match="try again"), turns.turn():
        pass
    with turns.turn():
        pass


def test_wallets_that_keep_the_chain_busy_leave_room_for_other_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract wallets burn the endpoint's time: two at once, and who signs by a key alone does not wait for them."""
    asked, go_on = threading.Barrier(WALLETS_AT_ONCE + 1), threading.Event()

    class Slow:
        def code(self, address: str) -> bytes:
            asked.wait(10)
            go_on.wait(10)
            return b""

        def call(self, to: str, data: bytes) -> bytes:
            return b""

    service = SignIn(settings(), 31337, cast(Database, None), Slow())
    digest, wallet = b"\1" * 32, "0x" + "11" * 20
    threads = [threading.Thread(target=service._signed, args=(digest, wallet, "0x")) for _ in range(WALLETS_AT_ONCE)]
    for thread in threads:
        thread.start()
    asked.wait(10)
    with pytest.raises(ProblemError) as busy:
        service._signed(digest, wallet, "0x")
    assert busy.value.status == 503
    signer = Key.of(b"\2" * 32)
    assert service._signed(digest, signer.address, signer.sign(digest))
    go_on.set()
    for thread in threads:
        thread.join()


def test_a_node_that_floods_is_slowed_down_and_an_ordinary_one_never_is() -> None:
    flood, calm = Pace(0.0), Pace(0.0)
    waits = [flood.delay(100, 0.001 * number) for number in range(5000)]
    assert waits[0] == 0
    assert waits[-1] > 5
    assert flood.delay(100, 60.0) == 0, "quiet for a while, it is heard at once again"
    assert all(calm.delay(2000, 0.1 * number) == 0 for number in range(5000))
    assert Pace(0.0, most=10).delay(4 << 20, 0.0) > 1, "large frames count for more"
