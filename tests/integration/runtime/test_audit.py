"""The audit reads what CRIU dumped here, changed as a hostile host would change it."""

from pathlib import Path

import pytest

from provider_agent.runtime import audit
from provider_agent.runtime.capability import cgroup_version
from provider_agent.runtime.errors import CheckpointRefused
from provider_agent.runtime.wire_images import child, fields, messages
from tests.integration.runtime.conftest import Fleet, until

THREADS = """
import threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print("ok", flush=True)
time.sleep(1000)
"""
THREAD_CORE, CREDS, EFFECTIVE, PROFILE = 5, 10, 11, 15


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def chunk(number: int, raw: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def within(message: bytes, path: tuple[int, ...], more: bytes) -> bytes:
    """The message with `more` at the end of the one that lies within it at this path of field numbers."""
    if not path:
        return message + more
    out = b""
    for number, value in fields(message):
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += chunk(number, within(value, path[1:], more) if number == path[0] else value)
    return out


def extend(core: Path, path: tuple[int, ...], more: bytes) -> None:
    raw = core.read_bytes()
    (message,) = messages(core)
    changed = within(message, path, more)
    core.write_bytes(raw[:8] + len(changed).to_bytes(4, "little") + changed)


@pytest.fixture
def images(fleet: Fleet) -> Path:
    """Of a job with two threads, taken without AppArmor."""
    a = fleet.hosts["a"]
    job = a.launch(fleet.raw_spec("python", "-c", THREADS))
    until(lambda: a.steps(job.id) == ["ok"])
    return a.checkpointer.dump(job.id, fleet.dump_path(), stay_frozen=True).path / "criu"


def refused(images: Path, *, apparmor: bool) -> str:
    try:
        audit.check_images(images, cgroup_version(), apparmor=apparmor)
    except CheckpointRefused as error:
        return str(error)
    return ""


def test_tasks_name_a_profile_where_containers_are_confined_and_none_elsewhere(images: Path) -> None:
    """CRIU restores a task without a profile as unconfined, whatever --lsm-profile says."""
    cores = sorted(images.glob("core-*.img"))
    assert len(cores) == 2
    assert refused(images, apparmor=False) == ""
    assert "would run without an AppArmor profile" in refused(images, apparmor=True)
    extend(cores[0], (THREAD_CORE, CREDS), chunk(PROFILE, b"docker-default"))
    for apparmor in (True, False):
        assert "profile" in refused(images, apparmor=apparmor), "one thread of two names a profile"
    extend(cores[1], (THREAD_CORE, CREDS), chunk(PROFILE, b"docker-default"))
    assert refused(images, apparmor=True) == ""
    assert "this host has none" in refused(images, apparmor=False)


def test_rights_can_not_hide_in_credentials_that_come_twice(images: Path) -> None:
    """A reader of protobuf merges the two: the capabilities of both."""
    core = next(images.glob("core-*.img"))
    (message,) = messages(core)
    sound = child(child(message, THREAD_CORE) or b"", CREDS)
    assert sound is not None
    extend(core, (THREAD_CORE, CREDS), chunk(EFFECTIVE, varint(2**32 - 1) * 2))
    assert "effective capabilities" in refused(images, apparmor=False)
    extend(core, (THREAD_CORE,), chunk(CREDS, sound))
    assert "comes twice" in refused(images, apparmor=False)
