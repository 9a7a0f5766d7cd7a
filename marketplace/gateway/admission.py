"""Who may connect: a node that proves its key and that its provider authorised on chain.

In this order, so that a stranger costs little: a glance at the few fields that are signed, the signature, the mirror
(and the chain where the mirror says no), and only then the whole message.
"""

import secrets
from dataclasses import dataclass
from typing import Annotated

import msgspec
from nacl.public import PublicKey
from pydantic import ValidationError

from everlease.chain import typed_data
from everlease.chain.errors import ChainError
from everlease.chain.typed_data import NodeHello
from everlease.chain.views import Views
from everlease.db import Tx, awards, nodes, queries
from everlease.domain.liveness import Liveness
from everlease.wire.node import Hello, Welcome
from marketplace.gateway.session import PROTOCOL, REFUSED, RESTART, SessionOver
from marketplace.parts import Parts
from marketplace.services.keys import InvalidSealingKey, parse_sealing_key
from marketplace.settings import MarketplaceSettings

MAX_FACTS_BYTES = 64 * 1024

_Address = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{40}\Z")]


class Signed(msgspec.Struct):
    """What a hello's signature covers, and the signature; the rest of the message is passed over unread."""

    node: _Address
    provider: _Address
    nonce: str
    sealing_key: Annotated[str, msgspec.Meta(max_length=64)]
    signature: Annotated[str, msgspec.Meta(max_length=4098)]


@dataclass(frozen=True, slots=True)
class Claim:
    """Who a hello is proved to come from, and for whom it says it works. ``mirrored``: the mirror says so, too."""

    node: str
    provider: str
    sealing_key: str
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted node: its session's id and what to answer."""

    node: str
    provider: str
    session: str
    sealing_key: str
    welcome: Welcome


def check(parts: Parts, text: str, nonce: str) -> Claim:
    """Check a hello's signature against the challenge's nonce. Raises SessionOver, DatabaseUnavailable."""
    signed = check_signature(parts, text, nonce)
    node, provider = signed.node.lower(), signed.provider.lower()
    with parts.db.transaction() as tx:
        row = queries.node_authority(tx, node)
    mirrored = row is not None and row.active and row.provider == provider
    return Claim(node, provider, signed.sealing_key, mirrored)


def ask_chain(parts: Parts, claim: Claim) -> None:
    """Whom the node works for by the chain itself: the mirror may lag a block behind. Raises SessionOver."""
    try:
        found = Views(parts.lookups, parts.deployment).provider_of(claim.node)
    except ChainError as error:
        raise SessionOver(RESTART, "the chain can't be asked who answers for this node: try again") from error
    if found is None or found.lower() != claim.provider:
        raise SessionOver(REFUSED, f"{claim.provider} has not authorised node {claim.node} on chain")


def admit(parts: Parts, text: str, claim: Claim, network: str) -> Admission:
    """Read the whole hello of a node that may come in, and open a session in the database.

    Raises SessionOver, DatabaseUnavailable, and OtherMasterKey: this process may have started without a database.
    """
    hello = _read_whole(text)
    if (hello.node, hello.provider, hello.sealing_key) != (claim.node, claim.provider, claim.sealing_key):
        raise SessionOver(PROTOCOL, "the hello says something twice")
    node, provider, session = claim.node, claim.provider, secrets.token_hex(16)
    with parts.db.transaction() as tx:
        parts.keys.check(tx)
        before = nodes.get(tx, node)
        was_lost = before is not None and before.liveness == Liveness.LOST
        row = nodes.admit(
            tx,
            node,
            provider,
            session,
            hello.sealing_key,
            hello.version,
            hello.facts,
            network=network,
            gateway=parts.gateway_id,
        )
        wait = backoff(parts.settings, row.losses) if was_lost else 0.0
        if wait:
            nodes.shun(tx, node, wait)
        confirmed, dropped = _sort_containers(tx, node, hello)
    welcome = Welcome(session=session, confirmed=confirmed, dropped=dropped, resume_after_s=wait)
    return Admission(node, provider, session, hello.sealing_key, welcome)


def check_signature(parts: Parts, text: str, nonce: str) -> Signed:
    """The signed fields of a hello, signed by its node for this chain, escrow and connection; raises SessionOver."""
    try:
        signed = msgspec.json.decode(text, type=Signed)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SessionOver(PROTOCOL, f"the hello is malformed: {str(error)[:80]}") from error
    if signed.nonce != nonce:
        raise SessionOver(REFUSED, "the hello answers another challenge")
    try:
        sealing: PublicKey = parse_sealing_key(signed.sealing_key)
        hello = NodeHello(nonce, signed.node.lower(), signed.provider.lower(), bytes(sealing))
        digest = typed_data.node_hello_digest(parts.deployment.escrow_domain, hello)
    except InvalidSealingKey as error:
        raise SessionOver(REFUSED, str(error)) from error
    if not typed_data.verify(digest, hello.node, signed.signature):
        raise SessionOver(REFUSED, "the hello is not signed by the node's key for this chain and escrow")
    return signed


def _read_whole(text: str) -> Hello:
    try:
        hello = Hello.model_validate_json(text)
    except ValidationError as error:
        raise SessionOver(PROTOCOL, f"the hello is malformed: {first_problem(error)}") from error
    if len(hello.model_dump_json(include={"facts"})) > MAX_FACTS_BYTES:
        raise SessionOver(REFUSED, f"a node's facts have at most {MAX_FACTS_BYTES} bytes")
    return hello


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a message, in words."""
    item = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"


def backoff(settings: MarketplaceSettings, losses: int) -> float:
    """Seconds without new jobs for a node that came back after being lost: doubled by each loss, bounded."""
    return min(settings.shun_base_s * 2.0 ** min(max(losses - 1, 0), 32), settings.shun_max_s)


def _sort_containers(tx: Tx, node: str, hello: Hello) -> tuple[dict[str, int], list[str]]:
    """(confirmed fences by job, jobs to drop): a container may go on only under the fence that is current now."""
    held = awards.current(tx, node, [container.job_id for container in hello.containers])
    confirmed: dict[str, int] = {}
    dropped: list[str] = []
    for container in hello.containers:
        award = held.get(container.job_id, (None, None))[0]
        if award is not None and award.fence == container.fence:
            confirmed[container.job_id] = container.fence
        elif not queries.is_preparing(tx, node, container.job_id, container.fence):
            dropped.append(container.job_id)
    return confirmed, [job_id for job_id in dict.fromkeys(dropped) if job_id not in confirmed]
