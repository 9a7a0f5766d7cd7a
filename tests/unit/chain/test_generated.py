"""The committed bindings are what the compiler makes of the contracts."""

import subprocess
import sys
from pathlib import Path

import pytest

from everlease.chain._generated.errors import ERRORS
from everlease.chain._generated.events import EVENTS

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.anvil
def test_committed_bindings_match_the_contracts() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_bindings.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_every_event_has_as_many_fields_as_its_signature_and_at_most_three_topics() -> None:
    for topic, event in EVENTS.items():
        assert len(topic) == 32
        types = event.SIGNATURE.removesuffix(")").partition("(")[2].split(",")
        assert [field.abi_type for field in event.FIELDS] == types
        assert sum(field.indexed for field in event.FIELDS) <= 3
        assert [field.name for field in event.FIELDS] == list(event.__struct_fields__)


def test_selectors_are_four_bytes_and_carry_values_by_name() -> None:
    names = [error.name for error in ERRORS.values()]
    assert len(names) == len(set(names))
    assert all(len(selector) == 4 for selector in ERRORS)
