from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from eth_account import Account

from everlease.domain.manifest import FileEntry, Manifest
from everlease.store.sealing import JobKeys

CONTRACT, JOB = "0x" + "11" * 20, "0x" + "22" * 32
NODE = Account.from_key(b"\x07" * 32)


@pytest.fixture
def keys() -> JobKeys:
    return JobKeys(31337, CONTRACT, JOB, 1, {1: os.urandom(32)}, os.urandom(32))


@pytest.fixture
def node_key() -> bytes:
    return b"\x07" * 32


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    def make(entries: tuple[FileEntry, ...] = (), **changes: Any) -> Manifest:
        fields: dict[str, Any] = {
            "chain_id": 31337,
            "contract": CONTRACT,
            "job_id": JOB,
            "seq": 1,
            "fence": 1,
            "epoch": 1,
            "lease_id": "0x" + "33" * 32,
            "node": NODE.address,
            "mode": "process",
            "generation": 1,
            "predecessor": None,
            "created_at": 1_700_000_000.25,
            "entries": entries,
            "requirements": {"kernel": "6.1", "cpu_flags": "avx2 sse4_2"},
            "stats": {"logical_bytes": 5, "pause_s": 0.125},
        }
        return Manifest(**(fields | changes))

    return make
