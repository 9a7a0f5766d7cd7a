"""One name for each posted price: the service that fixes reserves and the one that shows them can't differ."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from everlease.domain.reserve import Posted
from everlease.settings import PriceSettings
from marketplace.settings import MarketplaceSettings
from recovery.settings import RecoverySettings

SHARED = {"deployments": "d.json", "rpc_urls": ["http://x"], "database_url": "postgresql://x"}
MARKET = {"watcher": "0x" + "01" * 20, "store": "s", "store_token_secret": "x" * 32, "master_key_file": Path("k")}


def both() -> list[PriceSettings]:
    return [RecoverySettings(**SHARED, broker_url="redis://x"), MarketplaceSettings(**SHARED, **MARKET)]  # type: ignore[arg-type]


def test_marketplace_and_recovery_read_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [settings.posted for settings in both()] == [Posted(100_000, 20_000, 1_000_000)] * 2
    for number, name in enumerate(("POSTED_CPU_RATE", "POSTED_GIB_RATE", "POSTED_GPU_RATE", "RESERVE_RISE"), 1):
        monkeypatch.setenv(f"EVERLEASE_{name}", str(number))
    assert [settings.posted for settings in both()] == [Posted(1, 2, 3)] * 2
    assert [settings.reserve_rise for settings in both()] == [4.0, 4.0]


def test_no_setting_lets_a_recovery_wait_longer_than_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLEASE_RESERVE_RISE_IN_RECOVERY", "5.1")
    with pytest.raises(ValidationError):
        both()
