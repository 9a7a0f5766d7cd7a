"""Speed of the block pipeline: snapshot, snapshot again with 80 % unchanged, restore. Prints MB/s of logical bytes.

python scripts/bench_store.py --mib 512
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import socket
import tempfile
import time
from pathlib import Path

from eth_account import Account

from everlease.domain.manifest import Manifest
from everlease.store.base import BlockStore
from everlease.store.http import HttpBlockStore
from everlease.store.local import LocalBlockStore
from everlease.store.manifest import read_manifest, write_manifest
from everlease.store.memory import MemoryBlockStore
from everlease.store.pipeline import SnapshotOptions, restore, scan, snapshot
from everlease.store.sealing import JobKeys
from everlease.store.serve import serve
from everlease.store.tokens import Scope, issue_token
from everlease.store.wrappers import RetryingStore

MIB = 1 << 20
SECRET = b"benchmark only, never elsewhere!"


def write_source(path: Path, mib: int) -> None:
    """Floats of a trained model look like this: high bytes alike, low bytes noise; a tenth is zeros."""
    with path.open("wb") as file:
        for index in range(mib):
            file.write(bytes(MIB) if index % 10 == 9 else os.urandom(MIB))


def change(path: Path, share: float) -> None:
    """Rewrite a share of the file's MiB in place."""
    with path.open("r+b") as file:
        total = path.stat().st_size // MIB
        for index in random.sample(range(total), int(total * share)):
            file.seek(index * MIB)
            file.write(os.urandom(MIB))


def bench(name: str, store: BlockStore, root: Path, mib: int, block_bytes: int) -> None:
    """Print one line per phase for a store."""
    source = root / f"source-{name}"
    source.mkdir()
    write_source(source / "pages.bin", mib)
    keys = JobKeys(1, "0x" + "11" * 20, "0x" + "22" * 32, 1, {1: os.urandom(32)}, os.urandom(32))
    options = SnapshotOptions(block_bytes=block_bytes)

    def timed(phase: str, start: float, detail: str = "") -> None:
        took = time.perf_counter() - start
        print(f"{name:8} {phase:24} {took:6.2f} s  {mib * MIB / took / 1e6:8.0f} MB/s  {detail}")

    start = time.perf_counter()
    first = snapshot(scan(source)[0], store, keys, options=options)
    timed("snapshot", start, f"{first.stats.new_bytes / 1e6:.0f} MB new")
    change(source / "pages.bin", 0.2)
    start = time.perf_counter()
    second = snapshot(scan(source)[0], store, keys, known=first.known, options=options)
    timed("snapshot, 80 % unchanged", start, f"{second.stats.new_bytes / 1e6:.0f} MB new")
    node = Account.create()
    manifest = Manifest(
        chain_id=1, contract=keys.contract, job_id=keys.job_id, seq=1, fence=1, epoch=1, lease_id="0x" + "33" * 32,
        node=node.address, mode="files", generation=1, predecessor=None, created_at=time.time(), entries=second.entries,
    )  # fmt: skip
    start = time.perf_counter()
    head = write_manifest(store, manifest, keys, node.key)
    print(f"{name:8} sign + store manifest    {time.perf_counter() - start:6.3f} s  {second.stats.blocks} blocks")
    start = time.perf_counter()
    signed = read_manifest(store, head, keys)
    print(f"{name:8} read + verify manifest   {time.perf_counter() - start:6.3f} s")
    start = time.perf_counter()
    restore(signed.manifest, store, keys, root / f"target-{name}", max_bytes=1 << 40)
    timed("restore", start)
    same = (source / "pages.bin").read_bytes() == (root / f"target-{name}" / "pages.bin").read_bytes()
    print(f"{name:8} identical: {same}")


def serve_http(root: Path, port: int) -> None:
    """The service in a process of its own, as it runs in practice."""
    serve(root, SECRET, host="127.0.0.1", port=port)


def open_http(root: Path) -> tuple[multiprocessing.Process, RetryingStore]:
    """Start the service on a free port and connect to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = multiprocessing.Process(target=serve_http, args=(root, port))
    process.start()
    token = issue_token(SECRET, subject="0xbench", scopes=list(Scope), session="bench", now=time.time(), ttl_s=3600)
    return process, RetryingStore(HttpBlockStore(f"http://127.0.0.1:{port}", lambda: token), attempts=8)


def main() -> None:
    """Run the benchmark on memory, local packs, and the HTTP service over local packs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--block-kib", type=int, default=128)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        bench("memory", MemoryBlockStore(), root, arguments.mib, arguments.block_kib << 10)
        local = LocalBlockStore(root / "store")
        bench("local", local, root, arguments.mib, arguments.block_kib << 10)
        local.close()
        process, remote = open_http(root / "served")
        bench("http", remote, root, arguments.mib, arguments.block_kib << 10)
        remote.close()
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
