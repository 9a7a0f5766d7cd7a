"""Where every unit of the asset is, before and after; and what the chain was asked to do."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode

from everlease.chain.abi import decode_result, encode_call, selector_names
from everlease.chain.deployment import Deployment
from everlease.chain.rpc import RpcChain
from everlease.chain.views import Views
from everlease.stack.servers import rpc


@dataclass(frozen=True, slots=True)
class Balances:
    """Base units per party: {wallet, claimable, staked, total}; what the contracts hold; and the asset's supply."""

    parties: dict[str, dict[str, int]]
    escrow_holds: int
    staking_holds: int
    supply: int
    job_balances: int

    @property
    def conserved(self) -> bool:
        """Nothing was made or lost: holdings add up to the supply, each contract holds exactly what it owes."""
        wallets = sum(party["wallet"] for party in self.parties.values())
        claimable = sum(party["claimable"] for party in self.parties.values())
        staked = sum(party["staked"] for party in self.parties.values())
        return (
            wallets + self.escrow_holds + self.staking_holds == self.supply
            and self.escrow_holds == claimable + self.job_balances
            and self.staking_holds == staked
        )

    def document(self) -> dict[str, Any]:
        """As report.json has it."""
        return {
            **self.parties,
            "contracts": {"escrow": self.escrow_holds, "staking": self.staking_holds, "jobs": self.job_balances},
            "supply": self.supply,
        }


def take_balances(chain: RpcChain, deployment: Deployment, parties: Mapping[str, str], jobs: list[str]) -> Balances:
    """Read them from the chain. ``parties``: name → address, everyone who ever held the asset; all leases are over."""
    views = Views(chain, deployment)
    found = {}
    for name, address in parties.items():
        wallet, claimable = views.asset_balance(address), views.claimable(address)
        staked = views.stake(address).staked
        found[name] = {"wallet": wallet, "claimable": claimable, "staked": staked, "total": wallet + claimable + staked}
    supply = decode_result(
        "MockDollar", "totalSupply", chain.call(deployment.asset, encode_call("MockDollar", "totalSupply"))
    )[0]
    return Balances(
        parties=found,
        escrow_holds=views.asset_balance(deployment.escrow),
        staking_holds=views.asset_balance(deployment.staking),
        supply=int(supply),
        job_balances=sum(escrow.free + escrow.fees for escrow in map(views.job, jobs)),
    )


def transactions(rpc_url: str, deployment: Deployment) -> dict[str, Any]:
    """Every transaction to the contracts: count, and gas by call (a multicall by the calls in it)."""
    names = selector_names()
    targets = {deployment.escrow, deployment.staking, deployment.asset}
    gas: dict[str, int] = defaultdict(int)
    counts: dict[str, int] = defaultdict(int)
    for number in range(int(rpc(rpc_url, "eth_blockNumber"), 16) + 1):
        block = rpc(rpc_url, "eth_getBlockByNumber", hex(number), True)
        if not block["transactions"]:
            continue
        used = {
            item["transactionHash"]: int(item["gasUsed"], 16)
            for item in rpc(rpc_url, "eth_getBlockReceipts", hex(number))
        }
        for transaction in block["transactions"]:
            if (transaction["to"] or "").lower() in targets:
                name = call_name(bytes.fromhex(transaction["input"][2:]), names)
                counts[name] += 1
                gas[name] += used[transaction["hash"]]
    return {"tx_count": sum(counts.values()), "gas_used": dict(gas), "calls": dict(counts)}


def call_name(data: bytes, names: Mapping[bytes, str]) -> str:
    """The function that call data names; multicalls as "suspend+open"."""
    name = names.get(data[:4], "0x" + data[:4].hex())
    if name != "multicall":
        return name
    return "+".join(call_name(inner, names) for inner in decode(["bytes[]"], data[4:])[0])
