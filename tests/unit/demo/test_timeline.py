"""A job's events in words."""

from everlease.demo.timeline import describe

NODE, NAMES = "0x" + "Ab" * 20, {"0x" + "ab" * 20: "node-1"}


def test_a_key_goes_to_a_node_or_to_the_tenant() -> None:
    assert describe("key.released", {"node": NODE, "generations": [1]}, NAMES) == "job key released to node-1"
    assert describe("key.released", {"tenant": NODE, "generations": [1]}, {}) == "job key released to the tenant"


def test_what_is_not_told() -> None:
    assert describe("node.beat", {}, NAMES) is None
