"""A deployments file against the chain: every claim in it, and what it doesn't say but relies on."""

import json
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from everlease.chain.abi import decode_result, encode_call, encode_constructor
from everlease.chain.bytecode import created_address, is_committed, staking_address
from everlease.chain.deployment import BadDeployment, Deployment
from everlease.chain.rpc import RpcChain


def verify(chain: RpcChain, path: Path) -> Iterator[str]:
    """Yields each thing that was found right; raises BadDeployment or WrongChain at the first that is not."""
    deployment = Deployment.load(path)
    deployment.check(chain)
    yield f"chain {deployment.chain_id} has code with these hashes at both addresses"
    for name, address in (("LeaseEscrow", deployment.escrow), ("ProviderStaking", deployment.staking)):
        if not is_committed(name, chain.code(address)):
            raise BadDeployment(f"the code at {address} is not the committed {name}")
        yield f"{name} is the committed bytecode"
    _references(chain, deployment)
    yield "escrow, staking and asset name each other"
    yield "the terms are those of the file"
    content = json.loads(path.read_text("utf-8"))
    tx_hash = content["contracts"]["LeaseEscrow"].get("transaction")
    creation = chain.creation(tx_hash) if tx_hash else None
    if creation is None:
        yield "not checked: the transaction that created the escrow, which this node does not have (any more)"
        return
    expected = encode_constructor("LeaseEscrow", deployment.asset, astuple(deployment.terms))
    if creation.code != expected or created_address(creation.sender, creation.nonce) != deployment.escrow:
        raise BadDeployment(f"{tx_hash} did not create this escrow from the committed code with these terms")
    yield f"the escrow was created by {creation.sender} from the committed code with these terms"


def _references(chain: RpcChain, deployment: Deployment) -> None:
    found = Deployment.read(chain, deployment.escrow, deployment.block)
    for name in ("staking", "asset", "terms"):
        ours, theirs = getattr(deployment, name), getattr(found, name)
        if ours != theirs:
            raise BadDeployment(f"{name} of the escrow at {deployment.escrow} is {theirs}, the file has {ours}")
    if staking_address(deployment.escrow) != deployment.staking:
        raise BadDeployment(f"{deployment.staking} was not created by the escrow at {deployment.escrow}")
    for name, expected in (("escrow", deployment.escrow), ("asset", deployment.asset)):
        stated = _view(chain, deployment.staking, name)
        if stated != expected:
            raise BadDeployment(f"{name} of the staking contract is {stated}, the file has {expected}")
    if not chain.code(deployment.asset):
        raise BadDeployment(f"the asset {deployment.asset} is not a contract on chain {deployment.chain_id}")


def _view(chain: RpcChain, address: str, name: str) -> Any:
    answer = chain.call(address, encode_call("ProviderStaking", name))
    return decode_result("ProviderStaking", name, answer)[0]
