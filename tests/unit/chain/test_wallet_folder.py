"""Where a wallet writes: for its owner alone, and told where it can't."""

import errno
import os
from pathlib import Path

import pytest

from everlease.chain.errors import WalletFolder
from everlease.chain.wallet_queue import WalletQueue
from tests.unit.chain.test_wallet_queue import KEY, Chain, call


def pay(folder: Path) -> Chain:
    chain = Chain()
    WalletQueue(chain, KEY, folder).send("pay", call)
    return chain


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


def test_every_folder_that_is_made_is_the_owners_alone(tmp_path: Path) -> None:
    pay(tmp_path / "state/everlease/wallets/1-0xab")
    names = ("state", "state/everlease", "state/everlease/wallets", "state/everlease/wallets/1-0xab")
    assert [mode(tmp_path / name) for name in names] == [0o700] * 4


@pytest.mark.parametrize("name", ["wallets", "wallets/mine"])
@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777])
def test_a_folder_that_others_write_to_is_refused(tmp_path: Path, name: str, bits: int) -> None:
    pay(tmp_path / "wallets/mine")
    (tmp_path / name).chmod(bits)
    with pytest.raises(WalletFolder, match="no one else may write to it"):
        pay(tmp_path / "wallets/mine")
    (tmp_path / name).chmod(0o755)
    assert pay(tmp_path / "wallets/mine").effects() == [b"pay"]


def test_anothers_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(WalletFolder, match="it must be yours"):
        pay(tmp_path / "wallets/mine")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_can_not_be_written_is_named_with_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(WalletFolder, match=r"wallets/mine, where .*XDG_STATE_HOME"):
        pay(tmp_path / "wallets/mine")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "wallets").write_text("")
    with pytest.raises(WalletFolder, match="XDG_STATE_HOME"):
        pay(tmp_path / "wallets/mine")


def test_a_full_disk_is_no_matter_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        pay(tmp_path / "wallets/mine")
