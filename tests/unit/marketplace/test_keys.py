"""Wrapping and sealing of job keys."""

import base64
import hashlib
import os
import threading
from pathlib import Path

import pytest
from nacl.public import PrivateKey, SealedBox

from everlease.db import Database, keys
from everlease.db.models.jobs import MasterKeyRow
from marketplace.services.keys import (
    InvalidSealingKey,
    KeyService,
    KeyUnavailable,
    MasterKeyInvalid,
    OtherMasterKey,
    load_master_key,
    parse_sealing_key,
)

JOB, OTHER = "0x" + "01" * 32, "0x" + "02" * 32


def test_the_master_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    key = load_master_key(path)
    assert (len(key), load_master_key(path), path.stat().st_mode & 0o777) == (32, key, 0o600)
    assert list(path.parent.iterdir()) == [path]


def test_a_master_key_that_others_can_read_or_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    load_master_key(path)
    path.chmod(0o644)
    with pytest.raises(MasterKeyInvalid, match="chmod 600"):
        load_master_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(MasterKeyInvalid, match="5 bytes"):
        load_master_key(path)


@pytest.mark.parametrize("text", ["", "!!!", "c2hvcnQ=", base64.b64encode(bytes(33)).decode()])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidSealingKey):
        parse_sealing_key(text)


def test_a_key_is_made_once_sealed_to_its_reader_and_bound_to_its_place(database: Database) -> None:
    reader, service = PrivateKey.generate(), KeyService(os.urandom(32))
    with database.transaction() as tx:
        for _ in range(2):
            service.ensure(tx, JOB, 1)
        service.ensure(tx, JOB, 2)
        sealed = service.sealed(tx, JOB, [1, 2], reader.public_key)
        again = service.sealed(tx, JOB, [1], reader.public_key)
    plain = {number: SealedBox(reader).decrypt(base64.b64decode(text)) for number, text in sealed.items()}
    assert SealedBox(reader).decrypt(base64.b64decode(again[1])) == plain[1]
    assert plain[1] != plain[2]
    assert {len(key) for key in plain.values()} == {32}
    with database.transaction() as tx:
        stored = keys.wrapped_keys(tx, JOB, [1])[1]
        assert plain[1] not in stored
        keys.put_if_absent(tx, OTHER, 1, stored)
        with pytest.raises(KeyUnavailable, match="another master key"):
            service.sealed(tx, OTHER, [1], reader.public_key)
        with pytest.raises(KeyUnavailable, match="has no key"):
            service.sealed(tx, JOB, [3], reader.public_key)
        with pytest.raises(KeyUnavailable, match="another master key"):
            KeyService(os.urandom(32)).sealed(tx, JOB, [1], reader.public_key)


def test_a_database_belongs_to_one_master_key_for_ever(database: Database) -> None:
    master = os.urandom(32)
    with database.transaction() as tx:
        KeyService(master).ensure(tx, JOB, 1)
    with pytest.raises(OtherMasterKey, match="copy the file"), database.transaction() as tx:
        KeyService(os.urandom(32)).ensure(tx, JOB, 2)
    with database.transaction() as tx:
        assert set(keys.wrapped_keys(tx, JOB, [1, 2])) == {1}, "nothing is wrapped under another one"
        KeyService(master).check(tx)
        stored = tx.get_one(MasterKeyRow, 1).fingerprint
    assert len(stored) == 32
    assert stored not in {master, hashlib.sha256(master).digest(), hashlib.blake2s(master).digest()}


def test_of_two_that_claim_a_database_at_once_one_is_refused(database: Database) -> None:
    refused: list[OtherMasterKey] = []

    def claim() -> None:
        try:
            with database.transaction() as tx:
                KeyService(os.urandom(32)).check(tx)
        except OtherMasterKey as error:
            refused.append(error)

    second = threading.Thread(target=claim)
    with database.transaction() as tx:
        KeyService(os.urandom(32)).check(tx)
        second.start()
        second.join(0.5)
        assert second.is_alive(), "it waits for the first to commit"
    second.join(30)
    assert len(refused) == 1
