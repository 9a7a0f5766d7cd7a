"""Whether to bid and for how much: a signed Bid, or a reason in words. Pure but for the host's own state."""

import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from everlease.chain.typed_data import Domain, bid_digest, job_id, order_digest, verify
from everlease.domain import compat
from everlease.domain.auction import LONGEST_BID_S
from everlease.domain.jobspec import JobSpec, spec_hash
from everlease.domain.manifest import CID
from everlease.domain.silence import too_short
from everlease.domain.terms import Bid
from everlease.store.errors import StoreError
from everlease.wire.node import CallForBids
from everlease.wire.terms import BidModel, SignedBid
from provider_agent.errors import StepFailed
from provider_agent.host import Host, disk_needed
from provider_agent.records import BidRecord
from provider_agent.runtime import network
from provider_agent.settings import GIB, AgentSettings
from provider_agent.terms import free_gpus, parse_spec, promised

SLOT_BITS = 64
"""Enough that no two bids of a provider meet; zero bytes of call data are cheap."""
UNKNOWN_IMAGE_BYTES = 256 << 20
"""What an image is taken to weigh when this host lacks it: its size is not known at the call."""


@dataclass(frozen=True)
class Offer:
    """A signed bid and the bytes that this host would still have to fetch."""

    signed: SignedBid
    missing_bytes: int


class Declined(Exception):
    """This node doesn't want the job or can't take it; the message is the reason."""


def price(settings: AgentSettings, spec: JobSpec) -> int:
    """Lowest rate in base units per hour: a base, and a part per CPU, GiB of memory and GPU."""
    resources = spec.resources
    cpus = -(-settings.cpu_rate * resources.cpu_millis // 1000)
    memory = -(-settings.gib_rate * resources.memory_bytes // GIB)
    return settings.base_rate + cpus + memory + settings.gpu_rate * resources.gpus


def consider(host: Host, call: CallForBids) -> Offer:
    """A bid for a call, remembered before it is returned. Blocks (Docker is asked). Raises Declined."""
    spec = _checked(host, call)
    rate = price(host.settings, spec)
    if rate > call.order.max_rate_per_hour:
        raise Declined(f"this node asks {rate} an hour, the order pays at most {call.order.max_rate_per_hour}")
    if host.settings.collateral < call.order.min_collateral:
        raise Declined(f"the order wants {call.order.min_collateral} of collateral, this node offers less")
    _room(host, call, spec)
    _capable(host, call, spec)
    bid = Bid(
        provider=host.identity.provider,
        node=host.identity.key.address,
        order_hash=call.order_hash,
        epoch=call.epoch,
        min_rate_per_hour=rate,
        collateral=host.settings.collateral,
        deadline=call.bids_until,
        slot=secrets.randbits(SLOT_BITS),
    )
    digest = bid_digest(Domain(host.chain_id, host.escrow), bid)
    model = BidModel.from_domain(bid)
    host.journal.put_bid(BidRecord(digest="0x" + digest.hex(), bid=model, order=call.order))
    signed = SignedBid(bid=model, signature=host.identity.key.sign(digest))
    return Offer(signed, _missing(host, call))


def _checked(host: Host, call: CallForBids) -> JobSpec:
    """The order must be the tenant's, for this escrow, under a watcher we accept; the spec must be its preimage."""
    order, domain = call.order.to_domain(), Domain(host.chain_id, host.escrow)
    if job_id(domain, order) != call.order_hash:
        raise Declined("the order's hash is not that of the order")
    if not verify(order_digest(domain, order), order.tenant, call.order_signature):
        raise Declined("the order is not signed by its tenant's key")
    if order.watcher.lower() not in {watcher.lower() for watcher in host.settings.watchers}:
        raise Declined(f"this node does not accept the watcher {order.watcher}")
    if (short := too_short(order.max_silence)) is not None:
        raise Declined(short)
    if order.deadline <= host.clock.unix():
        raise Declined("the order has expired")
    if (ahead := call.bids_until - int(host.clock.unix())) > LONGEST_BID_S:
        raise Declined(f"the bid would have to be good for {ahead} s, this node's last for at most {LONGEST_BID_S} s")
    try:
        spec = parse_spec(call.spec)
    except StepFailed as error:
        raise Declined(error.sentence) from error
    if spec_hash(spec) != order.job_spec:
        raise Declined("the job's spec is not the one in the signed order")
    return spec


def _room(host: Host, call: CallForBids, spec: JobSpec) -> None:
    """Jobs, CPUs, memory, disk and GPUs that are not promised to others, and the job's own subnet."""
    others, wanted = promised(host, but=call.order_hash), spec.resources
    if len(others) >= host.settings.max_jobs:
        raise Declined(f"this node runs {len(others)} jobs, which is its limit")
    if sum(other.resources.cpu_millis for other in others) + wanted.cpu_millis > int(host.facts["cores"]) * 1000:
        raise Declined("this node has too few free CPUs")
    memory = sum(other.resources.memory_bytes for other in others) + wanted.memory_bytes
    if memory > int(host.facts["memory_bytes"]):
        raise Declined("this node has too little free memory")
    if disk_needed(spec, 2 * call.checkpoint_bytes) > host.free_disk():
        raise Declined("this node has too little free disk")
    try:
        free_gpus(host, call.order_hash, wanted.gpus)
    except StepFailed as error:
        raise Declined(error.sentence) from error
    subnet = network.identity(call.order_hash)
    if overlaps(subnet.subnet, taken_subnets(host, but=subnet.name)):
        raise Declined(f"the job's subnet {subnet.subnet} is in use on this host")


def _capable(host: Host, call: CallForBids, spec: JobSpec) -> None:
    """Process checkpoints where the order insists on them, and hardware that its checkpoint can live on."""
    if spec.checkpoint.strict and (reason := compat.unproved(host.facts, spec)) is not None:
        raise Declined(reason[:500])
    process_mode = host.facts["runtime"]["process_mode"]
    if process_mode and (reason := compat.why_not(call.checkpoint_requirements, host.facts)) is not None:
        raise Declined(reason)


def _missing(host: Host, call: CallForBids) -> int:
    """Bytes of image and checkpoint that are not on this host."""
    missing = 0 if host.engine.images.find(call.image_digest) else UNKNOWN_IMAGE_BYTES
    if call.checkpoint is not None:
        try:
            held = host.cached(str).cached_share([CID(call.checkpoint)])
        except (StoreError, OSError):
            held = 0.0
        missing += int(call.checkpoint_bytes * (1 - held))
    return missing


def taken_subnets(host: Host, but: str) -> list[str]:
    """Subnets of Docker's networks on this host, the job's own left out."""
    found = []
    for item in host.engine.client.networks.list():
        if item.name != but:
            found += [
                str(pool["Subnet"]) for pool in (item.attrs.get("IPAM") or {}).get("Config") or [] if "Subnet" in pool
            ]
    return found


def overlaps(subnet: str, taken: Iterable[str]) -> bool:
    """Whether a subnet shares addresses with any of the others of its IP version."""
    wanted = ipaddress.ip_network(subnet)
    others = (ipaddress.ip_network(other, strict=False) for other in taken)
    return any(other.version == wanted.version and wanted.overlaps(other) for other in others)
