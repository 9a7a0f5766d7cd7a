"""The stack's chain over a stop and a start: blocks stay, and what is written stays small."""

from pathlib import Path

from everlease.stack.processes import ProcessTable
from everlease.stack.servers import rpc, start_anvil

ROOT = Path(__file__).resolve().parents[3]
SINK = "0x" + "11" * 20


def test_blocks_and_balances_outlive_a_restart_and_no_state_is_written_for_each_block(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path)
    try:
        url = _url(table)
        sender = rpc(url, "eth_accounts")[0]
        sent = rpc(url, "eth_sendTransaction", {"from": sender, "to": SINK, "value": "0x7"})
        rpc(url, "anvil_mine", hex(300))
        height = int(rpc(url, "eth_blockNumber"), 16)
        table.stop_all()
        assert (tmp_path / "anvil" / "state.json").stat().st_size < 5_000_000
        url = _url(table)
        assert int(rpc(url, "eth_blockNumber"), 16) >= height
        assert rpc(url, "eth_getTransactionReceipt", sent)["status"] == "0x1"
        assert rpc(url, "eth_getBalance", SINK, "latest") == "0x7"
    finally:
        table.stop_all()


def _url(table: ProcessTable) -> str:
    endpoint = start_anvil(table, ROOT, "127.0.0.1")
    return f"http://{endpoint.host}:{endpoint.port}"
