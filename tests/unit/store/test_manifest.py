from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.domain.manifest import BlockRef, FileEntry, Manifest
from everlease.store.base import put_block
from everlease.store.cid import cid_of
from everlease.store.errors import BlockCorrupt, KeyMissing, ManifestInvalid, StoreError
from everlease.store.manifest import (
    commitment,
    committed_by,
    decode_manifest,
    encode_manifest,
    read_manifest,
    sign_manifest,
    verify_manifest,
    walk_chain,
    write_manifest,
)
from everlease.store.memory import MemoryBlockStore
from everlease.store.sealing import JobKeys

Make = Callable[..., Manifest]
CID_A, CID_B = cid_of(b"a"), cid_of(b"b")
FILE = FileEntry(
    "criu/pages-1.img",
    "file",
    8192,
    layout="aligned",
    space="pid:1",
    blocks=(BlockRef(CID_A, 0x7F00_0000_1000, 1, 4096), BlockRef(None, 0x7F00_0000_2000, 0, 4096)),
)
CID = cid_of(b"manifest")


def test_a_manifest_reads_back(make_manifest: Make) -> None:
    manifest = make_manifest(
        (FILE, FileEntry("a", "directory", mode=0o755), FileEntry("a/l\udcffn", "symlink", target="../x"))
    )
    again = decode_manifest(encode_manifest(manifest))
    assert sorted(again.entries, key=lambda entry: entry.path) == sorted(manifest.entries, key=lambda entry: entry.path)
    assert replace(again, entries=()) == replace(manifest, entries=())
    assert again.cids() == {CID_A}
    assert again.generations() == {1}


def test_encoding_does_not_depend_on_the_order_of_mappings(make_manifest: Make) -> None:
    left = make_manifest(requirements={"a": "1", "b": "2"})
    right = make_manifest(requirements={"b": "2", "a": "1"})
    assert encode_manifest(left) == encode_manifest(right)


@pytest.mark.parametrize(
    "entries",
    [
        (FileEntry("/etc/passwd", "file"),),
        (FileEntry("../x", "file"),),
        (FileEntry("a/../../x", "file"),),
        (FileEntry("a//b", "file"),),
        (FileEntry("a\0b", "file"),),
        (FileEntry("", "file"),),
        (FileEntry("a", "file"), FileEntry("a", "file")),
        (FileEntry("a", "symlink", target="/etc"), FileEntry("a/b", "file")),
        (FileEntry("a", "file"), FileEntry("a/b/c", "file")),
        (FileEntry("a", "symlink"),),
        (FileEntry("a", "file", mode=0o4755),),
        (FileEntry("a", "file", 5, blocks=(BlockRef(CID_A, 0, 1, 4),)),),
        (FileEntry("a", "file", 5, blocks=(BlockRef(CID_A, 1, 1, 5),)),),
        (FileEntry("a", "file", 0, blocks=(BlockRef(CID_A, 0, 1, 0),)),),
        (FileEntry("a", "file", 1 << 21, blocks=(BlockRef(CID_A, 0, 1, 1 << 21),)),),
        (FileEntry("a", "directory", 4, blocks=(BlockRef(CID_A, 0, 1, 4),)),),
    ],
)
def test_unsafe_entries_are_refused(make_manifest: Make, entries: tuple[FileEntry, ...]) -> None:
    with pytest.raises(ManifestInvalid):
        encode_manifest(make_manifest(entries))


def test_a_deep_tree_is_refused_and_a_parent_is_looked_at_once(make_manifest: Make) -> None:
    """Few bytes would cost minutes."""
    with pytest.raises(ManifestInvalid, match="parts"):
        encode_manifest(make_manifest((FileEntry("/".join("d" * 65), "file"),)))
    deep = "/".join("d" * 63)
    encode_manifest(make_manifest(tuple(FileEntry(f"{deep}/{number}", "file") for number in range(1000))))


def test_block_tables_are_counted_before_they_are_read(make_manifest: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few KiB, compressed, name a million blocks of zeros."""
    fields = json.loads(encode_manifest(make_manifest((FileEntry("z", "file"),))))
    count = 1 << 20
    table = {
        "size": count,
        "positions": b64encode(b"".join(place.to_bytes(8, "big") for place in range(count))).decode(),
        "lengths": b64encode(b"\0\0\0\1" * count).decode(),
        "generations": b64encode(b"\xff" * 4 * count).decode(),
    }
    monkeypatch.setattr("everlease.store.manifest.BlockRef", None)
    for names in (table, ["lengths"], ["positions"], ["generations"]):
        entry = {**fields["entries"][0], **{name: table[name] for name in names}}
        body = json.dumps({**fields, "entries": [entry]}, sort_keys=True, separators=(",", ":")).encode()
        with pytest.raises(ManifestInvalid, match="references"):
            decode_manifest(body)
    for many in ("[],", "{},", "1.5,"):
        with pytest.raises(ManifestInvalid, match="values"):
            decode_manifest(b'{"entries":[' + many.encode() * (1 << 20) + b"0]}")


def test_bodies_that_are_not_canonical_are_refused(make_manifest: Make) -> None:
    body = encode_manifest(make_manifest((FILE,)))
    fields = json.loads(body)
    for changed in (
        body + b" ",
        json.dumps(fields).encode(),
        json.dumps(fields | {"extra": 1}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps(fields | {"seq": "1"}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps(fields | {"seq": True}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps(fields | {"mode": "other"}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps(fields | {"entries": [{}]}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps(fields | {"entries": 3}, sort_keys=True, separators=(",", ":")).encode(),
        b"[" * 100_000,
        b"{}",
        b"",
    ):
        with pytest.raises(ManifestInvalid):
            decode_manifest(changed)


@given(st.data())
def test_any_change_to_a_signed_manifest_is_noticed(data: st.DataObject) -> None:
    manifest = Manifest(
        1,
        "0x" + "11" * 20,
        "0x" + "22" * 32,
        1,
        1,
        1,
        "0x00",
        "0x00A3b4C5",
        "files",
        1,
        None,
        1.5,
        (FILE,),
    )
    from eth_account import Account

    manifest = replace(manifest, node=Account.from_key(b"\x07" * 32).address)
    payload = bytearray(sign_manifest(manifest, b"\x07" * 32))
    assert verify_manifest(CID, bytes(payload)).manifest == manifest
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ManifestInvalid):
        verify_manifest(CID, bytes(payload))


@pytest.mark.parametrize("change", [27, 32, 64])
def test_a_signature_has_one_spelling(make_manifest: Make, node_key: bytes, change: int) -> None:
    payload = bytearray(sign_manifest(make_manifest(), node_key))
    verify_manifest(CID, bytes(payload))
    payload[69] ^= change
    with pytest.raises(ManifestInvalid, match="malformed"):
        verify_manifest(CID, bytes(payload))


def test_a_commitment_shows_the_signer_to_those_without_keys(make_manifest: Make, node_key: bytes) -> None:
    manifest = make_manifest((FILE,))
    digest, signature = commitment(sign_manifest(manifest, node_key))
    assert committed_by(digest, signature) == manifest.node
    other, _ = commitment(sign_manifest(make_manifest(), node_key))
    assert committed_by(other, signature) != manifest.node
    for bad in ("0x", "0x00", "nonsense", "0x" + "ff" * 65):
        with pytest.raises(ManifestInvalid):
            committed_by(digest, bad)


def test_another_key_cannot_sign_for_the_node(make_manifest: Make) -> None:
    with pytest.raises(ManifestInvalid):
        sign_manifest(make_manifest(), b"\x08" * 32)


def test_written_manifests_read_back_and_blocks_that_are_none_are_refused(
    make_manifest: Make, keys: JobKeys, node_key: bytes
) -> None:
    store = MemoryBlockStore()
    cid = write_manifest(store, make_manifest((FILE,)), keys, node_key)
    signed = read_manifest(store, cid, keys)
    assert signed.manifest.entries == (FILE,)
    assert signed.signer == signed.manifest.node
    with pytest.raises(ManifestInvalid):
        read_manifest(store, put_block(store, keys.seal(b"just data")), keys)
    with pytest.raises(BlockCorrupt):
        read_manifest(store, put_block(store, os.urandom(100)), keys)


def test_a_manifest_of_another_job_sealed_for_this_one_is_refused(
    make_manifest: Make, keys: JobKeys, node_key: bytes
) -> None:
    store = MemoryBlockStore()
    cid = write_manifest(store, make_manifest(job_id="0x" + "99" * 32), keys, node_key)
    with pytest.raises(ManifestInvalid):
        read_manifest(store, cid, keys)


def test_a_reader_without_a_named_generation_is_told_which(make_manifest: Make, keys: JobKeys, node_key: bytes) -> None:
    store = MemoryBlockStore()
    newer = replace(keys, generation=2, keys={1: keys.keys[1], 2: os.urandom(32)})
    cid = write_manifest(store, make_manifest((FILE,), generation=2), newer, node_key)
    assert read_manifest(store, cid, newer).manifest.generations() == {1, 2}
    with pytest.raises(KeyMissing) as caught:
        read_manifest(store, cid, replace(newer, keys={2: newer.keys[2]}))
    assert caught.value.generation == 1


def test_the_chain_is_walked_and_each_link_checked(make_manifest: Make, keys: JobKeys, node_key: bytes) -> None:
    store = MemoryBlockStore()
    first = write_manifest(store, make_manifest(), keys, node_key)
    second = write_manifest(store, make_manifest(seq=2, predecessor=first, fence=3), keys, node_key)
    third = write_manifest(store, make_manifest(seq=3, predecessor=second, fence=3), keys, node_key)
    assert [signed.cid for signed in walk_chain(store, third, keys)] == [third, second, first]
    for wrong in (
        make_manifest(seq=4, predecessor=second, fence=3),
        make_manifest(seq=3, predecessor=second, fence=2),
    ):
        with pytest.raises(ManifestInvalid):
            list(walk_chain(store, write_manifest(store, wrong, keys, node_key), keys))


def test_twenty_thousand_blocks_fit_a_block_of_the_store(make_manifest: Make, keys: JobKeys, node_key: bytes) -> None:
    refs = tuple(BlockRef(cid_of(number.to_bytes(4, "big")), number << 16, 1, 1 << 16) for number in range(20_000))
    entry = FileEntry("pages-1.img", "file", 20_000 << 16, layout="aligned", space="pid:1", blocks=refs)
    store = MemoryBlockStore()
    cid = write_manifest(store, make_manifest((entry,)), keys, node_key)
    assert read_manifest(store, cid, keys).manifest.entries == (entry,)
    assert store.size(cid) < 2 << 20


def test_errors_of_the_store_are_one_tree() -> None:
    assert issubclass(ManifestInvalid, StoreError)
    assert not ManifestInvalid("x").retryable
