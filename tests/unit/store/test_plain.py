from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from everlease.store.base import put_block
from everlease.store.cid import cid_of
from everlease.store.errors import BlockCorrupt, BlockNotFound, ManifestInvalid
from everlease.store.memory import MemoryBlockStore
from everlease.store.plain import PLAIN_BLOCK_BYTES, fetch_plain, read_plain, upload_plain


@pytest.mark.parametrize("size", [0, 1, PLAIN_BLOCK_BYTES, 3 * PLAIN_BLOCK_BYTES + 5])
def test_files_come_back_and_are_stored_once(tmp_path: Path, size: int) -> None:
    source = tmp_path / "image.tar"
    source.write_bytes(os.urandom(size))
    store = MemoryBlockStore()
    plain = upload_plain(store, source)
    assert upload_plain(store, source) == plain == read_plain(store, plain.cid)
    assert len(list(store.cids())) == len(plain.blocks) + 1
    fetch_plain(store, plain, tmp_path / "copy", max_bytes=size)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_lists_that_lie_or_do_not_fit_are_refused_and_nothing_appears(tmp_path: Path) -> None:
    source = tmp_path / "image.tar"
    source.write_bytes(os.urandom(1000))
    store = MemoryBlockStore()
    plain = upload_plain(store, source)
    with pytest.raises(ManifestInvalid):
        fetch_plain(store, plain, tmp_path / "copy", max_bytes=999)
    part = plain.blocks[0][0]

    def listed(**changes: object) -> bytes:
        fields = {"blocks": [[part, 1000]], "sha256": plain.sha256, "size": 1000, "version": 1}
        return json.dumps(fields | changes, sort_keys=True, separators=(",", ":")).encode()

    other = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
    huge = listed().replace(b"1000]]", b"1e999]]")
    wrong = [listed(size=999), listed(version=2), listed(blocks=[[part, -5]]), listed(blocks=[[other, 1000]])]
    spaced = json.dumps(json.loads(listed())).encode()
    for body in (b"", b"{}", b"[" * 99_999, huge, spaced, listed().replace(b"]]", b"],]"), *wrong):
        with pytest.raises(ManifestInvalid):
            read_plain(store, put_block(store, body))
    for body in (listed(size=2000, blocks=[[part, 2000]]), listed(sha256="00" * 32)):
        with pytest.raises(BlockCorrupt):
            fetch_plain(store, read_plain(store, put_block(store, body)), tmp_path / "copy", max_bytes=9999)
    absent = listed(blocks=[[cid_of(b"absent"), 1000]])
    with pytest.raises(BlockNotFound):
        fetch_plain(store, read_plain(store, put_block(store, absent)), tmp_path / "copy", max_bytes=9999)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar"]
