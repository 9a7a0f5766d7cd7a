"""A host's facts while the agent runs: measured anew once another daemon answers, and only then."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import TimeoutExpired
from types import SimpleNamespace
from typing import Any, cast

import pytest

from everlease.docker_api import EngineUnsupported
from provider_agent import survey as module
from provider_agent.hardware import HardwareFacts
from provider_agent.runtime.capability import RuntimeCapabilities
from provider_agent.runtime.errors import DaemonUnavailable
from provider_agent.settings import AgentSettings
from provider_agent.survey import Survey, follow

CAPS = RuntimeCapabilities("20.10.24", "1.1.5", "4.2", "v2", True, "6.1.0", "overlay2", True, True, "")


class Docker:
    """A daemon that can be exchanged, what is asked of it, and how trials end on it."""

    def __init__(self) -> None:
        self.daemon: str | None = "boot/1/1"
        self.caps, self.works, self.running = CAPS, True, False
        self.others_work = True
        self.room = 10 << 30
        self.proved: RuntimeCapabilities | None = None
        self.fault: Exception | None = None
        self.runc = Path("/nonexistent/runc")
        self.calls: list[str] = []
        self.now = 1e6

    def exchange(self, version: str) -> None:
        self.daemon, self.caps = f"boot/2/{version}", replace(self.caps, docker=version)

    def negotiate(self) -> None:
        self.calls.append("negotiate")
        if self.fault is not None:
            raise self.fault

    def capabilities(self, *_: object) -> RuntimeCapabilities:
        self.calls.append("measure")
        return self.caps

    def recalled(self, caps: RuntimeCapabilities, _: object) -> tuple[RuntimeCapabilities, bool]:
        if self.proved == caps:
            return caps, False
        return replace(caps, process_mode=False, other_users=False, reason="no trial yet"), True

    def tried(self, caps: RuntimeCapabilities, *_: object) -> RuntimeCapabilities:
        self.calls.append("try")
        caps = replace(caps, other_users=self.others_work)
        self.proved = caps if self.works else None
        return caps if self.works else replace(caps, process_mode=False, other_users=False, reason="broken")


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Docker:
    found = Docker()
    monkeypatch.setattr(module, "capabilities", found.capabilities)
    monkeypatch.setattr(module.trial, "recalled", found.recalled)
    monkeypatch.setattr(module.trial, "tried", found.tried)
    monkeypatch.setattr(module.trial, "busy", lambda _: found.running)
    facts = HardwareFacts("GenuineIntel", "cpu", ("sse2",), 1, 4, 8 << 30, 1, "6.1.0", (), "", "no GPU", CAPS)
    monkeypatch.setattr(module.hardware, "measure", lambda caps, _: replace(facts, runtime=caps))
    monkeypatch.setattr(module, "EVERY_S", 0.001)
    monkeypatch.setattr(module, "monotonic", lambda: found.now)
    return found


def survey(docker: Docker, *, prove: bool = True) -> Survey:
    settings = AgentSettings.model_construct(
        cpu_millis=None, memory_bytes=1 << 30, data_dir=Path("/"), prove_runtime=prove
    )
    nothing: Any = SimpleNamespace(tools=SimpleNamespace(runc=docker.runc, criu=None))
    return Survey(settings, cast("Any", docker), nothing, nothing, lambda: docker.daemon)


def runtime(facts: dict[str, Any] | None) -> tuple[str, bool]:
    assert facts is not None
    return facts["runtime"]["docker"], facts["runtime"]["process_mode"]


def test_at_the_start_an_idle_host_is_tried_at_once(docker: Docker) -> None:
    facts = survey(docker).first()
    assert runtime(facts) == ("20.10.24", True)
    assert facts["memory_bytes"] == 1 << 30, "what the provider offers"


def test_while_nothing_changes_docker_is_spared(docker: Docker) -> None:
    looked = survey(docker)
    looked.first()
    docker.calls.clear()
    assert [looked.again(idle=True) for _ in range(3)] == [None] * 3
    docker.daemon = None
    assert looked.again(idle=True) is None, "nobody answers: there is nothing to measure"
    assert docker.calls == []


def test_another_daemon_is_measured_and_tried_once_the_host_is_idle(docker: Docker) -> None:
    looked = survey(docker)
    looked.first()
    docker.exchange("29.0.1")
    docker.calls.clear()
    assert runtime(looked.again(idle=True)) == ("29.0.1", False), "not claimed before it is shown"
    assert docker.calls == ["negotiate", "measure"]
    assert looked.again(idle=False) is None
    assert runtime(looked.again(idle=True)) == ("29.0.1", True)
    assert looked.again(idle=True) is None


def test_runc_exchanged_under_a_daemon_that_runs_on_is_measured_and_tried(docker: Docker, tmp_path: Path) -> None:
    docker.runc = tmp_path / "runc"
    docker.runc.write_text("1.1.5")
    looked = survey(docker)
    looked.first()
    assert looked.again(idle=True) is None
    docker.runc.write_text("1.3.6, of a security update")
    docker.caps = replace(docker.caps, runc="1.3.6")
    assert runtime(looked.again(idle=False)) == ("20.10.24", False)
    assert runtime(looked.again(idle=True)) == ("20.10.24", True)


def test_a_trial_that_fails_is_made_again_after_a_while(docker: Docker) -> None:
    """It may have failed of a full disk. On the same daemon each pause is twice as long, another is tried at once."""
    looked = survey(docker)
    looked.first()
    docker.works = False
    docker.exchange("29.0.1")
    looked.again(idle=True)
    assert runtime(looked.again(idle=True)) == ("29.0.1", False)
    assert looked.again(idle=True) is None
    docker.now += module.AGAIN_S
    assert runtime(looked.again(idle=True)) == ("29.0.1", False)
    docker.now += module.AGAIN_S
    assert looked.again(idle=True) is None
    docker.now += module.AGAIN_S
    docker.works = True
    assert runtime(looked.again(idle=True)) == ("29.0.1", True)
    docker.works = False
    docker.exchange("29.0.3")
    looked.again(idle=True)
    assert runtime(looked.again(idle=True)) == ("29.0.3", False)
    docker.exchange("29.0.2")
    docker.works = True
    looked.again(idle=True)
    assert runtime(looked.again(idle=True)) == ("29.0.2", True)


def test_a_trial_that_failed_for_another_user_alone_is_made_again_as_well(docker: Docker) -> None:
    looked, docker.others_work = survey(docker), False
    assert looked.first()["runtime"]["other_users"] is False
    docker.now, docker.others_work = docker.now + module.AGAIN_S, True
    found = looked.again(idle=True)
    assert found is not None
    assert found["runtime"]["other_users"] is True
    docker.now += module.AGAIN_AT_MOST_S
    assert looked.again(idle=True) is None


def test_a_trial_that_jobs_put_off_at_the_start_is_made_once_they_are_gone(docker: Docker) -> None:
    looked, docker.running = survey(docker), True
    assert runtime(looked.first()) == ("20.10.24", False)
    assert looked.again(idle=False) is None
    assert runtime(looked.again(idle=True)) == ("20.10.24", True)


def test_a_provider_that_trusts_the_versions_gets_no_trial(docker: Docker) -> None:
    looked = survey(docker, prove=False)
    looked.first()
    docker.exchange("29.0.1")
    assert runtime(looked.again(idle=True)) == ("29.0.1", True)
    assert "try" not in docker.calls


def test_a_daemon_that_could_not_be_measured_is_measured_later(docker: Docker) -> None:
    looked = survey(docker)
    looked.first()
    docker.exchange("29.0.1")
    docker.fault = DaemonUnavailable("x", "it starts")
    with pytest.raises(DaemonUnavailable):
        looked.again(idle=True)
    docker.fault = None
    assert runtime(looked.again(idle=True)) == ("29.0.1", False)


def followed(docker: Docker, changes: list[Callable[[], None]]) -> list[dict[str, Any]]:
    """What is told while one change after the other befalls the host; each waits for some looks."""
    looked, told = survey(docker), []
    facts = looked.first()

    async def tell() -> None:
        told.append(dict(facts["runtime"]))

    async def scene() -> None:
        task = asyncio.create_task(follow(looked, facts, lambda: docker.room, lambda: True, tell))
        for change in changes:
            await asyncio.sleep(0.1)
            change()
        await asyncio.sleep(0.1)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    return told


def test_facts_are_told_when_they_change_and_only_then(docker: Docker) -> None:
    told = followed(docker, [lambda: docker.exchange("20.10.24"), lambda: docker.exchange("29.0.1")])
    assert [(facts["docker"], facts["process_mode"]) for facts in told] == [("29.0.1", False), ("29.0.1", True)]


def test_a_disk_that_filled_up_or_was_cleared_is_told(docker: Docker) -> None:
    """Else a host that connected with a full disk would be asked for no job until it connects again."""

    def left(room: int) -> Callable[[], None]:
        return lambda: setattr(docker, "room", room)

    assert len(followed(docker, [left(0), left(9 << 30)])) == 2
    assert followed(docker, [left((9 << 30) + (1 << 20)), left((9 << 30) - (1 << 20))]) == []


def test_a_daemon_without_a_common_version_ends_the_claim(docker: Docker) -> None:
    def unsupported() -> None:
        docker.fault = EngineUnsupported("Docker 19.03 speaks API 1.40 at most")
        docker.exchange("19.03")

    def mended() -> None:
        docker.fault = None

    told = followed(docker, [unsupported, mended])
    assert "API 1.40 at most" in told[0]["reason"]
    assert [(facts["docker"], facts["process_mode"]) for facts in told] == [
        ("20.10.24", False),
        ("19.03", False),
        ("19.03", True),
    ]


def test_a_daemon_that_does_not_answer_changes_nothing(docker: Docker) -> None:
    def away() -> None:
        docker.fault = DaemonUnavailable("x", "it starts")
        docker.exchange("29.0.1")

    assert followed(docker, [away]) == []


def test_whatever_goes_wrong_while_measuring_the_agent_goes_on(docker: Docker) -> None:
    def hangs() -> None:
        docker.fault = TimeoutExpired(["runc", "--version"], 30)
        docker.exchange("29.0.1")

    def mended() -> None:
        docker.fault = None

    assert [facts["docker"] for facts in followed(docker, [hangs, mended])][-1] == "29.0.1"
