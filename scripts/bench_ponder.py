"""Ponder on the same chain: every event of the escrow into one table of its own store, PGlite.."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from everlease.chain.abi import artifact

NAMES = ("JobFunded", "LeaseOpened", "LeaseCollected", "Credited", "LeaseClosed")
_SCHEMA = """import { onchainTable } from "ponder";
export const lease_event = onchainTable("lease_event", (t) => ({
  id: t.text().primaryKey(), name: t.text().notNull(), block: t.bigint().notNull(), args: t.text().notNull() }));
"""
_HANDLER = """ponder.on("Escrow:{name}", async ({{ event, context }}) => {{
  await context.db.insert(lease_event).values({{ id: event.id, name: "{name}", block: event.block.number,
    args: JSON.stringify(event.args, (_, v) => (typeof v === "bigint" ? v.toString() : v)) }});
}});
"""


def run_ponder(folder: Path, rpc: str, address: str, events: int) -> dict[str, Any]:
    """Seconds from start to /ready; ``backfill``: those of its own log between the first message on it and the last."""
    for left in (".ponder", "generated"):
        shutil.rmtree(folder / left, ignore_errors=True)
    abi = [item for item in artifact("LeaseEscrow")["abi"] if item["type"] == "event" and item["name"] in NAMES]
    (folder / "src").mkdir(exist_ok=True)
    (folder / "ponder.schema.ts").write_text(_SCHEMA)
    handlers = "".join(_HANDLER.format(name=name) for name in NAMES)
    imports = 'import { ponder } from "ponder:registry";\nimport { lease_event } from "ponder:schema";\n'
    (folder / "src/index.ts").write_text(imports + handlers)
    (folder / "ponder.config.ts").write_text(
        'import { createConfig } from "ponder";\n'
        f"export default createConfig({{ chains: {{ anvil: {{ id: 31337, rpc: {json.dumps(rpc)} }} }},\n"
        f"  contracts: {{ Escrow: {{ chain: 'anvil', abi: {json.dumps(abi)} as const,\n"
        f"    address: '{address}', startBlock: 0 }} }} }});\n"
    )
    (folder / "src/api").mkdir(exist_ok=True)
    (folder / "src/api/index.ts").write_text('import { Hono } from "hono";\nexport default new Hono();\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["node_modules/.bin/ponder", "start", "--schema", "bench", "--port", str(port), "--log-format", "json"]
    environment = os.environ | {"PONDER_TELEMETRY_DISABLED": "true"}
    log = folder / "ponder.log"
    with log.open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _await_ready(process, port, log)
            seconds = time.perf_counter() - started
            peak = _peak_mib(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = {"seconds": round(seconds, 2), "events": events, "per_second": round(events / seconds), "mib": peak}
    return found | {"backfill": _backfill_seconds(log)}


def _await_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"Ponder ended: {log.read_text()[-2000:]}")


def _backfill_seconds(log: Path) -> float:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    times = [line["time"] for line in lines if "backfill" in line.get("msg", "")]
    return round((max(times) - min(times)) / 1000, 2) if times else 0.0


def _peak_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024
