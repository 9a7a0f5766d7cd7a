"""The trial by which a host finds out whether process checkpoints work here."""

import re
from pathlib import Path

from provider_agent import cgroups, guard, guards, trial
from provider_agent.installation import doctor
from provider_agent.runtime.capability import capabilities
from provider_agent.runtime.checkpoint import Checkpointer, HostTools
from tests.integration.runtime.conftest import Fleet


def test_a_container_of_root_and_one_of_a_user_are_dumped_and_go_on_and_nothing_is_left(fleet: Fleet) -> None:
    host = fleet.hosts["a"]

    steps = trial.attempt(host.engine, host.checkpointer)

    root, user = steps
    assert root.reason == ""
    # CRIU reads another user's limits with this right, which some machines' kernels keep from us.
    assert bool(user.reason) == (not _may_read_limits()), user.reason
    assert all(step.dump_s > 0 and step.restore_s > 0 for step in steps if not step.reason)
    assert host.engine.list() == ()
    assert not host.engine.client.images.list(trial.IMAGE)
    assert not (host.state / "trial").exists()


def test_a_verdict_counts_until_something_changes_and_a_failure_is_tried_again(
    fleet: Fleet, tools: HostTools, tmp_path: Path
) -> None:
    host = fleet.hosts["a"]
    found = capabilities(host.engine.client, tools)
    broken = tmp_path / "criu"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    crippled = Checkpointer(HostTools(tools.runc, broken), host.state)

    refused = trial.tried(found, host.engine, crippled)

    assert not refused.process_mode
    assert refused.reason.startswith("a small container was not dumped and restored (")
    assert trial.recalled(found, host.engine)[1], "that nothing works is not kept"
    proved = trial.tried(found, host.engine, host.checkpointer)
    assert proved.process_mode
    assert proved.other_users == _may_read_limits() == (not proved.reason)
    assert trial.recalled(found, host.engine) == (proved, not proved.other_users), "what failed is tried again"


def _may_read_limits() -> bool:
    held = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert held is not None
    return bool(int(held.group(1), 16) >> 24 & 1)  # CAP_SYS_RESOURCE


def test_a_doctor_on_a_host_without_an_agent_tries_it_and_leaves_no_cgroup_and_no_guard(
    fleet: Fleet, tools: HostTools
) -> None:
    host = fleet.hosts["c"]
    data, root = host.root / "doctor", cgroups.private_root(host.state)
    data.mkdir()
    (data / "runtime").symlink_to(host.state)
    guards.teardown(host.state)
    try:
        found = list(doctor.examine(data, host.docker.paths.socket, tools.criu, root=root))
        assert not [finding for finding in found if finding.state == "bad"]
        assert any("run by root was dumped" in finding.sentence for finding in found)
        assert not cgroups.is_set_up(host.state)
        assert not guard.lives(host.state / "hostguard.lock")
        layout = cgroups.detect(root)
        assert not any((tree / layout.path()).exists() for tree in layout.trees)
    finally:
        cgroups.set_up(host.state, root)
