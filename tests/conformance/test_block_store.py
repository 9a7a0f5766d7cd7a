"""One suite that every block store must pass: memory, local packs, HTTP against the real service, and the wrappers."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from everlease.domain.manifest import CID
from everlease.store.base import MAX_BLOCK_BYTES, BlockStore, get_block, put_block
from everlease.store.block_service import BlockService
from everlease.store.cid import cid_of, digest_of
from everlease.store.errors import BlockCorrupt, BlockNotFound, BlockTooLarge
from everlease.store.http import HttpBlockStore
from everlease.store.local import LocalBlockStore
from everlease.store.memory import MemoryBlockStore
from everlease.store.service import create_block_app
from everlease.store.sessions import SessionLedger
from everlease.store.tokens import Scope, issue_token, verify_token
from everlease.store.wrappers import CachingStore, LimitedStore, RetryingStore

SECRET = b"s" * 32
Open = Callable[[], BlockStore]


@pytest.fixture
def http_store(tmp_path: Path) -> Iterator[BlockStore]:
    backend = LocalBlockStore(tmp_path / "served")
    ledger = SessionLedger(tmp_path / "sessions.db")
    app = create_block_app(
        BlockService(backend, ledger, time.time), lambda token: verify_token(SECRET, token, now=time.time())
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # whoever connects before the server takes it waits
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        token = issue_token(SECRET, subject="0xnode", scopes=list(Scope), session="s", now=time.time(), ttl_s=600)
        client = HttpBlockStore(f"http://127.0.0.1:{listener.getsockname()[1]}", lambda: token)
        try:
            yield RetryingStore(client, first_wait_s=0.05)
        finally:
            client.close()
            server.should_exit = True
            thread.join()
    backend.close()
    ledger.close()


@pytest.fixture(params=["memory", "local", "local-small-packs", "http", "cached", "limited"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlockStore]:
    if request.param == "http":
        yield request.getfixturevalue("http_store")
        return
    made: BlockStore
    if request.param == "local":
        made = LocalBlockStore(tmp_path / "store")
    elif request.param == "local-small-packs":
        made = LocalBlockStore(tmp_path / "store", pack_bytes=4096)
    elif request.param == "cached":
        made = CachingStore(LocalBlockStore(tmp_path / "store"), tmp_path / "cache")
    elif request.param == "limited":
        made = LimitedStore(MemoryBlockStore(), 1 << 30)
    else:
        made = MemoryBlockStore()
    yield made
    made.close()


def blocks(count: int, size: int = 1000) -> list[tuple[CID, bytes]]:
    made = [os.urandom(size) for _ in range(count)]
    return [(cid_of(data), data) for data in made]


def test_a_block_put_is_got_again(store: BlockStore) -> None:
    cid = put_block(store, b"some bytes")
    assert get_block(store, cid) == b"some bytes"
    assert store.has([cid]) == {cid}
    assert store.size(cid) == 10


def test_an_empty_block_is_a_block(store: BlockStore) -> None:
    assert get_block(store, put_block(store, b"")) == b""


def test_putting_twice_changes_nothing(store: BlockStore) -> None:
    batch = blocks(3)
    store.put_many(batch)
    store.put_many([*batch, *batch])
    assert list(store.cids()) == sorted((cid for cid, _ in batch), key=digest_of)


def test_many_blocks_come_back_in_the_order_asked(store: BlockStore) -> None:
    batch = blocks(700)
    store.put_many(batch)
    asked = [cid for cid, _ in reversed(batch)] + [batch[0][0]]
    got = list(store.get_many(asked))
    assert [cid for cid, _ in got] == asked
    assert dict(got) == dict(batch)


def test_has_names_only_what_is_there(store: BlockStore) -> None:
    present, absent = blocks(5), blocks(5)
    store.put_many(present)
    assert store.has([cid for cid, _ in present + absent]) == {cid for cid, _ in present}
    assert store.has([]) == set()


def test_an_absent_block_is_an_error_that_names_it(store: BlockStore) -> None:
    (present, data), (absent, _) = blocks(2)
    store.put_many([(present, data)])
    with pytest.raises(BlockNotFound) as caught:
        list(store.get_many([present, absent]))
    assert caught.value.cid == absent
    with pytest.raises(BlockNotFound):
        store.size(absent)


def test_bytes_that_are_not_the_cid_are_refused(store: BlockStore) -> None:
    cid, data = blocks(1)[0]
    with pytest.raises(BlockCorrupt) as caught:
        store.put_many([(cid, data + b"x")])
    assert caught.value.cid == cid
    assert store.has([cid]) == set()


def test_a_block_above_the_limit_is_refused(store: BlockStore) -> None:
    data = bytes(MAX_BLOCK_BYTES + 1)
    with pytest.raises(BlockTooLarge):
        store.put_many([(cid_of(data), data)])


def test_deleted_blocks_are_gone_and_can_be_put_again(store: BlockStore) -> None:
    batch = blocks(4)
    store.put_many(batch)
    gone = [cid for cid, _ in batch[:2]]
    store.delete(gone)
    store.delete(gone)
    assert store.has([cid for cid, _ in batch]) == {cid for cid, _ in batch[2:]}
    store.put_many(batch)
    assert dict(store.get_many([cid for cid, _ in batch])) == dict(batch)


def test_threads_may_put_and_get_at_once(store: BlockStore) -> None:
    shared = blocks(20)
    batches = [shared + blocks(20) for _ in range(4)]
    failures: list[BaseException] = []

    def work(batch: list[tuple[CID, bytes]]) -> None:
        try:
            store.put_many(batch)
            assert dict(store.get_many([cid for cid, _ in batch])) == dict(batch)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(list(store.cids())) == 100
