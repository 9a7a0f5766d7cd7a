"""Who may connect: a node that proves its key and that its provider authorised on chain."""

import secrets
from dataclasses import dataclass

from nacl.public import PublicKey

from everlease.chain import typed_data
from everlease.chain.errors import ChainError
from everlease.chain.typed_data import NodeHello
from everlease.db import Tx, awards, nodes, queries
from everlease.domain.liveness import Liveness
from everlease.wire.node import Hello, Welcome
from marketplace.gateway.session import REFUSED, RESTART, SessionOver
from marketplace.parts import Parts
from marketplace.services.keys import InvalidSealingKey, parse_sealing_key
from marketplace.settings import MarketplaceSettings

MAX_FACTS_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted node: its session's id and what to answer."""

    node: str
    provider: str
    session: str
    welcome: Welcome


def admit(parts: Parts, hello: Hello, nonce: str) -> Admission:
    """Check a hello against the challenge's nonce and open a session in the database; raises SessionOver."""
    node, provider = hello.node.lower(), hello.provider.lower()
    _check_hello(parts, hello, node, provider, nonce)
    _check_authority(parts, node, provider)
    session = secrets.token_hex(16)
    with parts.db.transaction() as tx:
        before = nodes.get(tx, node)
        was_lost = before is not None and before.liveness == Liveness.LOST
        row = nodes.admit(tx, node, provider, session, hello.sealing_key, hello.version, hello.facts)
        wait = backoff(parts.settings, row.losses) if was_lost else 0.0
        if wait:
            nodes.shun(tx, node, wait)
        confirmed, dropped = _sort_containers(tx, node, hello)
    welcome = Welcome(session=session, confirmed=confirmed, dropped=dropped, resume_after_s=wait)
    return Admission(node, provider, session, welcome)


def backoff(settings: MarketplaceSettings, losses: int) -> float:
    """Seconds without new jobs for a node that came back after being lost: doubled by each loss, bounded."""
    return min(settings.shun_base_s * 2.0 ** min(max(losses - 1, 0), 32), settings.shun_max_s)


def _check_hello(parts: Parts, hello: Hello, node: str, provider: str, nonce: str) -> None:
    if hello.nonce != nonce:
        raise SessionOver(REFUSED, "the hello answers another challenge")
    if len(hello.model_dump_json(include={"facts"})) > MAX_FACTS_BYTES:
        raise SessionOver(REFUSED, f"a node's facts have at most {MAX_FACTS_BYTES} bytes")
    try:
        sealing: PublicKey = parse_sealing_key(hello.sealing_key)
    except InvalidSealingKey as error:
        raise SessionOver(REFUSED, str(error)) from error
    signed = NodeHello(nonce, node, provider, bytes(sealing))
    digest = typed_data.node_hello_digest(parts.deployment.escrow_domain, signed)
    if not typed_data.verify(digest, node, hello.signature):
        raise SessionOver(REFUSED, "the hello is not signed by the node's key for this chain and escrow")


def _check_authority(parts: Parts, node: str, provider: str) -> None:
    """By the mirror, and by the chain itself where the mirror says no: it may lag a block behind."""
    with parts.db.transaction() as tx:
        row = queries.node_authority(tx, node)
    if row is not None and row.active and row.provider == provider:
        return
    try:
        found = parts.views.provider_of(node)
    except ChainError as error:
        raise SessionOver(RESTART, "the chain can't be asked who answers for this node: try again") from error
    if found is None or found.lower() != provider:
        raise SessionOver(REFUSED, f"{provider} has not authorised node {node} on chain")


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
