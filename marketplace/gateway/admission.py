"""Who may connect: a node that proves its key and that its provider authorised on chain.

In this order, so that a stranger costs little: a glance at the few fields that are signed, the signature, the mirror
(and the chain where the mirror says no), and only then the whole message.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from nacl.public import PublicKey
from pydantic import ValidationError

from everlease.chain import typed_data
from everlease.chain.errors import ChainError
from everlease.chain.typed_data import NodeHello
from everlease.db import Tx, awards, nodes, queries
from everlease.domain.liveness import Liveness
from everlease.wire.node import Hello, Welcome
from marketplace.gateway.session import PROTOCOL, REFUSED, RESTART, SLOW, SessionOver
from marketplace.networks import Bucket
from marketplace.parts import Parts
from marketplace.services.keys import InvalidSealingKey, parse_sealing_key
from marketplace.settings import MarketplaceSettings

MAX_FACTS_BYTES = 64 * 1024
_LOOKUPS_PER_SECOND, _MOST_LOOKUPS = 5.0, 20.0


_Address = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{40}\Z")]


class Signed(msgspec.Struct):
    """What a hello's signature covers, and the signature; the rest of the message is passed over unread."""

    node: _Address
    provider: _Address
    nonce: str
    sealing_key: Annotated[str, msgspec.Meta(max_length=64)]
    signature: Annotated[str, msgspec.Meta(max_length=4098)]


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted node: its session's id and what to answer."""

    node: str
    provider: str
    session: str
    sealing_key: str
    welcome: Welcome


class Registrar:
    """Admits nodes. Runs in threads, a few at a time."""

    def __init__(self, parts: Parts, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._clock = clock
        self._lookups = Bucket(_LOOKUPS_PER_SECOND, _MOST_LOOKUPS, clock())

    def admit(self, text: str, nonce: str, network: str) -> Admission:
        """Check a hello against the challenge's nonce and open a session in the database.

        Raises SessionOver, DatabaseUnavailable.
        """
        parts = self._parts
        signed = check_signature(parts, text, nonce)
        node, provider = signed.node.lower(), signed.provider.lower()
        self._check_authority(node, provider)
        hello = _read_whole(text)
        if (hello.node, hello.provider, hello.sealing_key) != (node, provider, signed.sealing_key):
            raise SessionOver(PROTOCOL, "the hello says something twice")
        session = secrets.token_hex(16)
        with parts.db.transaction() as tx:
            before = nodes.get(tx, node)
            was_lost = before is not None and before.liveness == Liveness.LOST
            row = nodes.admit(
                tx, node, provider, session, hello.sealing_key, hello.version, hello.facts, network=network
            )
            wait = backoff(parts.settings, row.losses) if was_lost else 0.0
            if wait:
                nodes.shun(tx, node, wait)
            confirmed, dropped = _sort_containers(tx, node, hello)
        welcome = Welcome(session=session, confirmed=confirmed, dropped=dropped, resume_after_s=wait)
        return Admission(node, provider, session, hello.sealing_key, welcome)

    def _check_authority(self, node: str, provider: str) -> None:
        """By the mirror, and by the chain itself where the mirror says no: it may lag a block behind.

        The chain is asked a few times a second at most: keys that nobody authorised cost nothing to make.
        """
        with self._parts.db.transaction() as tx:
            row = queries.node_authority(tx, node)
        if row is not None and row.active and row.provider == provider:
            return
        if not self._lookups.take(self._clock()):
            raise SessionOver(SLOW, "many unknown nodes are asking: try again")
        try:
            found = self._parts.views.provider_of(node)
        except ChainError as error:
            raise SessionOver(RESTART, "the chain can't be asked who answers for this node: try again") from error
        if found is None or found.lower() != provider:
            raise SessionOver(REFUSED, f"{provider} has not authorised node {node} on chain")


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
