"""An Anvil of one's own: a free port, stopped by its pid."""

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

BINARY = Path(__file__).parents[2] / "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"

KEYS = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    "0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
    "0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
)
"""Anvil's published development keys, each with 10,000 ether; index 0 deploys."""


@dataclass(frozen=True, slots=True)
class Anvil:
    """A running node."""

    url: str
    ws_url: str
    pid: int

    def rpc(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call, for the anvil_* and evm_* methods of a test."""
        answer = httpx.post(self.url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).json()
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def mine(self, blocks: int = 1) -> None:
        """Mine ``blocks`` blocks now."""
        self.rpc("anvil_mine", hex(blocks))

    def warp(self, seconds: int) -> None:
        """Let ``seconds`` pass and mine a block."""
        self.rpc("evm_increaseTime", hex(seconds))
        self.mine()

    def reorg(self, depth: int, transactions: Sequence[object] = ()) -> None:
        """Replace the last ``depth`` blocks by others (empty ones by default)."""
        self.rpc("anvil_reorg", depth, list(transactions))


@contextmanager
def running_anvil(*options: str, slots: int = 2) -> Iterator[Anvil]:
    """Start Anvil with ``options``, final after 2 × ``slots`` blocks; stop it by its pid at the end."""
    if not BINARY.exists():
        raise FileNotFoundError("Anvil is missing: run `npm ci --ignore-scripts` in the repository")
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [BINARY, "--port", "0", "--slots-in-an-epoch", str(slots), *options],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            address = _await_address(process, output)
            yield Anvil(f"http://{address}", f"ws://{address}", process.pid)
        finally:
            process.kill()
            process.wait()


def _await_address(process: "subprocess.Popen[bytes]", output: Any) -> str:
    for _ in range(600):
        output.seek(0)
        text = output.read()
        if found := re.search(r"Listening on (\S+)", text):
            return found[1]
        if process.poll() is not None:
            raise AssertionError(f"Anvil ended: {text[-2000:]}")
        time.sleep(0.02)
    raise AssertionError("Anvil did not listen within 12 s")
