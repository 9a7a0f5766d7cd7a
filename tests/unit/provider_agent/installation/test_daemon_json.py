"""daemon.json gets our runtime and nothing else changes."""

import json

import pytest

from provider_agent.installation.daemon_json import with_runtime, without_runtime
from provider_agent.installation.errors import HostRefused

OURS = {"path": "/var/lib/everlease/runtime/everlease-runc"}
THEIRS = """{
  "log-driver": "journald",
  "runtimes": {
    "nvidia": {"path": "nvidia-container-runtime"}
  }
}
"""


def _added(text: str | None) -> str:
    return with_runtime(text, "everlease", OURS["path"])


@pytest.mark.parametrize("text", [None, "", "{}", " \n"])
def test_a_file_that_says_nothing_gets_our_runtime_alone(text: str | None) -> None:
    assert json.loads(_added(text)) == {"runtimes": {"everlease": OURS}}


def test_other_settings_and_runtimes_stay_in_their_order_and_layout() -> None:
    merged = _added(THEIRS)

    expected = json.loads(THEIRS)
    expected["runtimes"]["everlease"] = OURS
    assert json.loads(merged) == expected
    assert list(json.loads(merged)) == ["log-driver", "runtimes"]
    assert merged.startswith('{\n  "log-driver"')


def test_a_file_that_has_our_runtime_stays_byte_for_byte() -> None:
    text = '{"runtimes":{"everlease":{"path":"' + OURS["path"] + '"}}}'
    assert _added(text) == text


def test_another_path_of_our_runtime_is_replaced() -> None:
    assert json.loads(with_runtime(_added(THEIRS), "everlease", "/new"))["runtimes"]["everlease"] == {"path": "/new"}


@pytest.mark.parametrize("text", ["{", "[]", '{"runtimes": []}', '{"a": 1} // note'])
def test_what_docker_would_not_read_either_is_refused(text: str) -> None:
    with pytest.raises(HostRefused, match=r"daemon\.json"):
        _added(text)


def test_taking_it_out_keeps_what_others_wrote_meanwhile() -> None:
    changed = json.loads(_added(THEIRS)) | {"debug": True}

    left = without_runtime(json.dumps(changed), "everlease", THEIRS)

    assert left is not None
    assert json.loads(left) == json.loads(THEIRS) | {"debug": True}


def test_runtimes_go_where_we_made_them_and_stay_where_they_were_empty_before() -> None:
    assert without_runtime(_added(None), "everlease", None) is None
    assert without_runtime(_added("{}"), "everlease", "{}") == "{}\n"
    left = without_runtime(_added('{"runtimes": {}}'), "everlease", '{"runtimes": {}}')
    assert left is not None
    assert json.loads(left) == {"runtimes": {}}
