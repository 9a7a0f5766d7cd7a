"""The node's keys: made once, kept for their owner, and of no use to open what is sealed to others."""

import base64
from pathlib import Path

import pytest
from nacl.public import PrivateKey, SealedBox

from everlease.chain.errors import KeyRefused
from everlease.wire.commands import Start
from provider_agent.crash import CrashPoints
from provider_agent.errors import ConfigurationRefused, StepFailed
from provider_agent.identity import Identity, load_identity
from provider_agent.settings import AgentSettings

ESCROW = "0x" + "e5" * 20


def settings(folder: Path, **changes: object) -> AgentSettings:
    fields = {"data_dir": folder, "gateway_url": "ws://x", "store_url": "http://x", "deployments": folder}
    return AgentSettings.model_validate({**fields, "provider": "0x" + "AA" * 20, "node_key": "07" * 32, **changes})


def start(identity: Identity, key: bytes = b"k" * 32) -> Start:
    def seal(data: bytes) -> str:
        return base64.b64encode(SealedBox(identity.sealing.public_key).encrypt(data)).decode()

    return Start(
        job_id="0x" + "ab" * 32,
        fence=1,
        step="start/1",
        lease_id="0x" + "cd" * 32,
        epoch=1,
        rate_per_hour=1,
        spec={},
        mode="process",
        generation=3,
        keys={3: seal(key)},
        dedup_secret=seal(b"d" * 32),
        store_token="t",
        max_silence=5,
        mtbf_s=60,
    )


def test_the_sealing_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first, second = (load_identity(settings(tmp_path), 31337) for _ in range(2))
    assert first.sealing_public == second.sealing_public
    assert first.provider == "0x" + "aa" * 20
    assert (tmp_path / "sealing.key").stat().st_mode & 0o777 == 0o600


def test_keys_come_out_of_their_boxes_for_this_node_alone(tmp_path: Path) -> None:
    identity = load_identity(settings(tmp_path), 31337)
    keys = identity.open_keys(start(identity), 31337, ESCROW)
    assert keys.keys == {3: b"k" * 32}
    assert "kkkk" not in repr(keys)
    stranger = Identity(identity.key, identity.provider, PrivateKey.generate())
    with pytest.raises(StepFailed, match="not sealed to this node"):
        stranger.open_keys(start(identity), 31337, ESCROW)
    with pytest.raises(StepFailed):
        identity.open_keys(start(identity, b"short"), 31337, ESCROW)


def test_a_raw_key_is_for_development_chains(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="development"):
        load_identity(settings(tmp_path), 1)
    with pytest.raises(ConfigurationRefused, match="KEYSTORE"):
        load_identity(settings(tmp_path, node_key=None), 31337)


def test_a_crash_point_has_to_exist() -> None:
    with pytest.raises(ValueError, match="not a crash point"):
        CrashPoints("nowhere")
    CrashPoints("start.done:3").reach("start.done")
    CrashPoints().reach("start.done")
