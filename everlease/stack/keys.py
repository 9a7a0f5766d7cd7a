"""Keys of a development market: accounts of Anvil's published mnemonic, as keystore files with a generated password."""

import os
import secrets
from pathlib import Path

from eth_account import Account

from everlease.chain.keys import Key, save_keystore

MNEMONIC = "test test test test test test test test test test test junk"
ACCOUNTS = 64
DEPLOYER, TENANT, WATCHER, TREASURY, INSURANCE = 0, 1, 2, 3, 4
FIRST_PROVIDER, FIRST_NODE, MAX_NODES = 10, 30, 16
_ROUNDS = 2**12
"""scrypt cost: the mnemonic is public, so nothing is gained by making its files slow."""


def development_key(index: int) -> Key:
    """Account ``index`` of the mnemonic (BIP-44, m/44'/60'/0'/0/index)."""
    Account.enable_unaudited_hdwallet_features()
    account = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return Key.of(bytes(account.key))


class KeyFolder:
    """``folder`` with NAME.json keystores and one password file, all for their owner alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password_file = folder / "password"

    def password(self) -> str:
        """The folder's password; made at the first call."""
        if not self.password_file.exists():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(24))
        return self.password_file.read_text(encoding="ascii")

    def path(self, name: str) -> Path:
        """The keystore file of this name."""
        return self.folder / f"{name}.json"

    def put(self, name: str, index: int) -> Key:
        """Write development account ``index`` as NAME.json unless it is there; returns the key."""
        key = development_key(index)
        if not self.path(name).exists():
            save_keystore(self.path(name), key, self.password(), rounds=_ROUNDS)
        return key
