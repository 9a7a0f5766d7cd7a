"""A marketplace that is really served, tenants that sign in, and nodes that speak the gateway's protocol."""

import base64
import socket as sockets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from eth_account.messages import defunct_hash_message
from nacl.public import PrivateKey, SealedBox
from siwe import SiweMessage
from websockets.sync.client import ClientConnection, connect

from everlease.chain.keys import Key
from everlease.chain.typed_data import NodeHello, bid_digest, node_hello_digest
from everlease.db import Database, awards, jobs
from everlease.db.models.jobs import AwardRow
from everlease.db.models.mirror import EscrowRow, LeaseRow, ProviderRow
from everlease.domain import jobspec
from everlease.domain.terms import Bid, Order
from everlease.wire.node import MAX_FRAME_BYTES, Challenge, Hello, Welcome, from_node, to_node
from everlease.wire.spec import SpecModel
from everlease.wire.terms import OrderModel
from marketplace.app import create_app
from marketplace.parts import Parts
from marketplace.serving import server_config
from marketplace.settings import MarketplaceSettings
from tests.support.deployed import DOLLAR, Market

SPEC: dict[str, Any] = {
    "name": "train-mlp",
    "image": "everlease/trainer:local",
    "image_digest": "sha256:" + "5e" * 32,
    "command": ["python", "train.py"],
    "resources": {"gpus": 0, "cpu_millis": 1000, "memory_bytes": 1 << 30, "disk_bytes": 1 << 30, "pids": 256},
    "checkpoint": {"mode": "auto", "max_lost_work_s": 300, "min_interval_s": 10, "fall_back_to_files": False},
    "max_recoveries": 10,
    "env": {},
    "workdir": "",
    "user": "",
}
FACTS: dict[str, Any] = {
    "cpu_vendor": "GenuineIntel",
    "cpu_model": "test",
    "cpu_flags": ["avx2", "sse2"],
    "xsave_size": 2696,
    "cores": 4,
    "memory_bytes": 8 << 30,
    "disk_free_bytes": 64 << 30,
    "kernel": "6.18.1",
    "gpus": [],
    "gpu_driver": "",
    "gpu_note": "no GPU",
    "runtime": {
        **{"criu": "4.2.1", "runc": "1.3.0", "cgroup": "v2", "apparmor": True},
        **{"process_mode": True, "other_users": True, "reason": ""},
    },
}
REQUIREMENTS = {
    "cpu_vendor": "GenuineIntel",
    "cpu_flags": ["sse2"],
    "xsave_size": 2696,
    "kernel": "6.18.1",
    "criu": "4.2.1",
    "runc": "1.3.0",
    "cgroup": "v2",
    "apparmor": "true",
}


@dataclass
class Service:
    """A served marketplace."""

    url: str
    settings: MarketplaceSettings
    parts: Parts

    @property
    def db(self) -> Database:
        return self.parts.db

    @property
    def node_url(self) -> str:
        return self.url.replace("http://", "ws://") + "/v1/node"

    def client(self, key: Key | None = None) -> httpx.Client:
        """An HTTP client, signed in where a key is given."""
        client = httpx.Client(base_url=self.url, timeout=20, trust_env=False)
        if key is not None:
            message, signature = sign_in_message(client, key)
            answer = client.post("/v1/auth/verify", json={"message": message, "signature": signature})
            assert answer.status_code == 200, answer.text
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return client


@contextmanager
def served(settings: MarketplaceSettings) -> Iterator[Service]:
    """Serve until the block ends, on the settings' port."""
    app = create_app(settings)
    server = uvicorn.Server(server_config(app, settings, log_level="error", log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the marketplace did not start"
        time.sleep(0.01)
    try:
        yield Service(settings.public_url, settings, app.state.parts)
    finally:
        app.state.parts.followers.close()
        app.state.gateway.close()
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive(), "the marketplace did not stop"


def make_settings(market: Market, database_url: str, folder: Path, **changes: Any) -> MarketplaceSettings:
    """Settings for a marketplace on a free port."""
    market.deployment.save(folder / "deployment.json")
    port = changes.pop("port", None) or free_port()
    values: dict[str, Any] = {
        "deployments": folder / "deployment.json",
        "rpc_urls": [market.anvil.url],
        "database_url": database_url,
        "port": port,
        "public_url": f"http://127.0.0.1:{port}",
        "watcher": market.watcher.address,
        "store": str(folder / "store"),
        "store_token_secret": "s" * 32,
        "master_key_file": folder / "master.key",
        **changes,
    }
    return MarketplaceSettings(**values)


def free_port() -> int:
    """A port that was free a moment ago."""
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def sign_in_message(client: httpx.Client, key: Key, **changes: Any) -> tuple[str, str]:
    """A signed EIP-4361 message with a fresh nonce; ``changes`` spoil it."""
    terms = client.post("/v1/auth/nonce").json()
    fields: dict[str, Any] = {
        "domain": terms["domain"],
        "address": key.address,
        "uri": terms["uri"],
        "version": "1",
        "chain_id": terms["chain_id"],
        "nonce": terms["nonce"],
        "statement": terms["statement"],
        "issued_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **changes,
    }
    message = SiweMessage(**fields).prepare_message()
    return message, key.sign(bytes(defunct_hash_message(text=message)))


def job_body(market: Market, spec: dict[str, Any] = SPEC, **changes: Any) -> dict[str, Any]:
    """A valid POST /v1/jobs; ``changes`` go into the order, which is then signed."""
    preimage = SpecModel.model_validate(spec).to_domain()
    values = {**asdict(market.order()), "job_spec": jobspec.spec_hash(preimage), **changes}
    order = Order(**values)
    signature = market.tenant.sign(market.order_digest(order))
    return {"spec": spec, "order": OrderModel.from_domain(order).model_dump(), "order_signature": signature}


def make_award(db: Database, job_id: str, node: Key, provider: Key, *, epoch: int = 1) -> AwardRow:
    """Award the job as recovery does: the fence is raised, the award before it ends."""
    with db.transaction() as tx:
        before = jobs.get(tx, job_id).fence
        now = datetime.now(UTC)
        if before:
            awards.end(tx, job_id, before, "lost", now)
        point = jobs.raise_fence(tx, job_id)
        row = AwardRow(
            job_id=job_id,
            fence=point.fence,
            epoch=epoch,
            node=node.address,
            provider=provider.address,
            bid={},
            bid_signature="0x",
            rate_per_hour=500_000,
            lease_id="0x" + f"{point.fence:064x}",
            mode="process",
            generation=point.fence,
            restore_seq=point.seq,
            restore_manifest=point.manifest,
            awarded_at=now,
        )
        awards.give(tx, row)
        return row


def mirror_lease(db: Database, award: AwardRow, state: str = "ACTIVE") -> None:
    """The lease as the indexer mirrors it."""
    now = int(time.time())
    units = dict.fromkeys(("rate", "collateral", "reserve", "bond", "paid", "fee", "slashed", "slot"), 0)
    zero = dict.fromkeys(("earned", "seen_at", "seq", "closable_at", "suspended_at", "answer_by", "ended_at"), 0)
    with db.transaction() as tx:
        tx.merge(
            LeaseRow(
                lease_id=award.lease_id,
                job_id=award.job_id,
                epoch=award.fence,
                provider=award.provider,
                node=award.node,
                state=state,
                noticed=False,
                started_at=now,
                ends_at=now + 3600,
                tx_hash="0x" + "7a" * 32,
                block=1,
                **{**units, "rate": 500_000, "reserve": DOLLAR},
                **zero,
            )
        )


def mirror_stake(db: Database, provider: Key, staked: int = 100 * DOLLAR, locked: int = 0) -> None:
    """A provider's stake as the indexer mirrors it."""
    units = dict.fromkeys(("unbonding", "unbonds_at", "slashed", "leases", "failed", "earned"), 0)
    with db.transaction() as tx:
        tx.merge(
            ProviderRow(provider=provider.address, staked=staked, locked=locked, metadata_cid="", block=1, **units)
        )


def mirror_escrow(db: Database, market: Market, job_id: str, deposit: int = 5 * DOLLAR) -> None:
    """The escrow as the indexer mirrors it."""
    units = dict.fromkeys(
        ("max_rate_per_hour", "order_max_rate", "min_collateral", "epoch_fee", "nonce", "reserved", "paid", "fees"), 0
    )
    with db.transaction() as tx:
        tx.add(
            EscrowRow(
                job_id=job_id,
                tenant=market.tenant.address,
                watcher=market.watcher.address,
                job_spec="0x" + "5b" * 32,
                deposit=deposit,
                balance=deposit,
                deposited=deposit,
                refunded=0,
                max_silence=6,
                max_epochs=20,
                order_max_epochs=20,
                deadline=int(time.time()) + 3600,
                order_deadline=int(time.time()) + 3600,
                epochs=0,
                cancelled=False,
                funded_at=1,
                block=1,
                **units,
            )
        )


@dataclass
class FakeNode:
    """A node client that speaks the real protocol, one message at a time."""

    service: Service
    market: Market
    key: Key
    provider: Key
    facts: dict[str, Any] = field(default_factory=lambda: FACTS)
    sealing: PrivateKey = field(default_factory=PrivateKey.generate)

    def connect(self, containers: tuple[dict[str, Any], ...] = (), **spoil: Any) -> Welcome:
        """Dial, answer the challenge, read the welcome."""
        self.say_hello(containers, **spoil)
        self.welcome = Welcome.model_validate_json(self.socket.recv(10))
        return self.welcome

    def say_hello(self, containers: tuple[dict[str, Any], ...] = (), **spoil: Any) -> None:
        """Dial and answer the challenge."""
        self.socket: ClientConnection = connect(
            self.service.node_url, max_size=MAX_FRAME_BYTES, proxy=None, ping_interval=None, close_timeout=1
        )
        self.sent = self.got = 0
        self.challenge = Challenge.model_validate_json(self.socket.recv(10))
        public = bytes(self.sealing.public_key)
        hello = NodeHello(self.challenge.nonce, self.key.address, self.provider.address, public)
        fields = {
            "node": self.key.address,
            "provider": self.provider.address,
            "nonce": self.challenge.nonce,
            "sealing_key": base64.b64encode(public).decode(),
            "version": "test/1",
            "facts": self.facts,
            "containers": list(containers),
            "signature": self.key.sign(node_hello_digest(self.market.deployment.escrow_domain, hello)),
            **spoil,
        }
        self.socket.send(Hello.model_validate(fields).model_dump_json())

    def send(self, type_: str, /, **fields: Any) -> int:
        """Number, check and send a message."""
        self.sent += 1
        message = from_node.validate_python({"type": type_, "seq": self.sent, **fields})
        self.socket.send(message.model_dump_json())
        return self.sent

    def recv(self, timeout: float = 10) -> Any:
        """The next message, its number checked."""
        message = to_node.validate_json(self.socket.recv(timeout))
        self.got += 1
        assert message.seq == self.got
        return message

    def expect(self, kind: str, timeout: float = 10) -> Any:
        """The next message of this type; others are passed over."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            message = self.recv(timeout)
            if message.type == kind:
                return message
        raise AssertionError(f"no {kind} came")

    def beat(self, *lines: dict[str, Any]) -> Any:
        """One heartbeat and its answer."""
        number = self.send("heartbeat", jobs=list(lines))
        answer = self.expect("heartbeat_ack")
        assert answer.ack == number
        return answer

    def bid(self, call: Any, **changes: Any) -> dict[str, Any]:
        """A signed bid for a call."""
        values = {
            "provider": self.provider.address,
            "node": self.key.address,
            "order_hash": call.order_hash,
            "epoch": call.epoch,
            "min_rate_per_hour": 1000,
            "collateral": DOLLAR,
            "deadline": int(time.time()) + 600,
            "slot": 7,
            **changes,
        }
        digest = bid_digest(self.market.deployment.escrow_domain, Bid(**values))
        return {"bid": values, "signature": self.key.sign(digest)}

    def unseal(self, sealed: str) -> bytes:
        """Open a sealed box."""
        return SealedBox(self.sealing).decrypt(base64.b64decode(sealed))

    def close(self) -> None:
        self.socket.close()
