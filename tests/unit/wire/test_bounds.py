"""What a node may write into the fields that it fills freely."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from everlease.store.cid import parse_cid
from everlease.store.errors import InvalidCid
from everlease.wire.base import Cid
from everlease.wire.node import from_node

CID = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
JOB = "0x" + "ab" * 32
HEARTBEAT = {"type": "heartbeat", "seq": 1, "jobs": [{"job_id": JOB, "fence": 1, "serving": True}]}
NOTICE = {"type": "notice", "seq": 1, "job_id": JOB, "fence": 1, "kind": "exited", "data": {"code": 3}}


def with_(message: dict[str, Any], **changes: Any) -> str:
    return json.dumps({**message, **changes})


@pytest.mark.parametrize(
    "text",
    [
        with_(NOTICE, data={"code": 10**400}),
        with_(NOTICE, data={"deep": [{"code": 2**63}]}),
        with_(NOTICE, data={"code": float("inf")}),
        with_(NOTICE, data={"code": float("nan")}),
        with_(NOTICE, data={"text": "x" * 70_000}),
        with_(NOTICE, fence=2**63),
        with_(NOTICE, fence=-1),
        with_(NOTICE, seq=10**30),
        with_(HEARTBEAT, jobs=[{"job_id": JOB, "fence": 1, "serving": True, "loss_bound_s": float("inf")}]),
        with_(HEARTBEAT, load=float("nan")),
        '{"type": "notice", "seq": 1, "data": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_numbers_out_of_range_and_oversized_objects_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        from_node.validate_json(text)


def test_ordinary_messages_pass() -> None:
    assert from_node.validate_json(json.dumps(NOTICE)).type == "notice"
    assert from_node.validate_json(json.dumps(HEARTBEAT)).type == "heartbeat"


@pytest.mark.parametrize(
    "text",
    [
        CID,
        CID[:-1],
        CID + "a",
        CID[:-1] + "f",
        CID.upper(),
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        "bafkreiz" + CID[8:],
        "b" + "a" * 58,
        "b" + "a" * 30,
        CID + "\n",
    ],
)
def test_a_cid_on_the_wire_is_one_for_the_store(text: str) -> None:
    """What passes here is looked for in the store, and may not fail there."""
    try:
        parse_cid(text)
        good = True
    except InvalidCid:
        good = False
    try:
        TypeAdapter(Cid).validate_python(text)
        passed = True
    except ValidationError:
        passed = False
    assert passed == good == (text == CID)
