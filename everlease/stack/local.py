"""The local stack as a whole: up, down, status. Down leaves nothing running and keeps the data for the next up."""

import ipaddress
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from everlease.chain.deployment import Deployment
from everlease.chain.rpc import RpcChain
from everlease.db import migrate
from everlease.stack import keys as dev
from everlease.stack import servers
from everlease.stack.accounts import Accounts, ProviderKeys
from everlease.stack.errors import AlreadyUp
from everlease.stack.healing import heal
from everlease.stack.network import HostNetwork, forwarding, free_subnet, tag_of
from everlease.stack.nodes import RUN, Node, check_host
from everlease.stack.plan import NodeState, StackPlan, StackState
from everlease.stack.processes import ProcessTable
from everlease.stack.services import Services

Note = Callable[[str], None]


class LocalStack:
    """One stack in ``home``; ``root`` is the checkout whose tools and code it runs."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root, self.home = root, home
        self.table = ProcessTable(home)
        self.keys = dev.KeyFolder(home / "keys")
        self._state_file = home / "stack.json"

    def state(self) -> StackState:
        """What runs; raises NotUp."""
        return StackState.load(self._state_file)

    def up(self, plan: StackPlan, note: Note = lambda _: None) -> StackState:
        """Start everything; on any failure, and on Ctrl-C, stop what was started. Raises StackError.

        Where it runs already, only what has died is started again; AlreadyUp where it has another number of hosts.
        """
        if self._state_file.exists() and any(self.table.alive(record) for record in self.table.records()):
            return self._heal(plan, note)
        self.down()
        if plan.nodes:
            check_host()
        self.home.mkdir(parents=True, exist_ok=True, mode=0o711)
        try:
            return self._up(plan, note)
        except BaseException:
            self.down()
            raise

    def _heal(self, plan: StackPlan, note: Note) -> StackState:
        state = self.state()
        dead = [record.name for record in self.table.records() if not self.table.alive(record)]
        # Without a market's URL the first `up` is still at work, or was killed at it.
        if not state.market_url or plan.nodes not in (0, len(state.nodes)):
            raise AlreadyUp(self.home)
        note(f"starting again what has died: {', '.join(dead)}" if dead else "everything runs already")
        by_process = {node.process_name: node for node in self.nodes(state)} if state.nodes else {}
        heal(self.table, state, lambda name: self._connected(state, by_process[name]))
        return state

    def _up(self, plan: StackPlan, note: Note) -> StackState:
        tag, forwarded = tag_of(self.home), forwarding()
        network = HostNetwork(tag, free_subnet(tag)) if plan.nodes else None
        host = network.gateway if network else plan.host
        if network:
            # Recorded before it is made, so that a kill at any point leaves what down can find.
            self._draft(tag, network, forwarded, plan).save(self._state_file)
            network.create()
        note("starting chain, database and broker")
        anvil = servers.start_anvil(self.table, self.root, host)
        rpc_url = f"http://{anvil.host}:{anvil.port}"
        database_url = servers.start_postgres(self.table, self.keys.folder)
        broker_url = servers.start_valkey(self.table, self.keys.folder)
        note("deploying contracts, migrating the database")
        deployments = self._deploy(rpc_url, plan)
        migrate.upgrade(database_url)
        note("starting indexer, marketplace and recovery")
        common = {"deployments": deployments, "rpc_urls": [rpc_url], "database_url": database_url}
        services = Services(self.table, self.root, host, common)
        explorer_url = services.indexer()
        market_url = services.marketplace(self._market_settings(plan, explorer_url))
        services.recovery(self._recovery_settings(plan, broker_url))
        nodes = self._node_states(tag, plan)
        self._prepare_accounts(rpc_url, deployments, plan)
        services.await_ready()
        state = StackState(
            home=str(self.home),
            tag=tag,
            host=host,
            subnet=str(network.subnet) if network else "",
            forwarding=forwarded,
            rpc_url=rpc_url,
            market_url=market_url,
            explorer_url=explorer_url,
            database_url=database_url,
            broker_url=broker_url,
            deployments=str(deployments),
            tenant=dev.development_key(dev.TENANT).address,
            watcher=dev.development_key(dev.WATCHER).address,
            nodes=nodes,
        )
        state.save(self._state_file)
        self._write_project_file(state)
        if nodes:
            note(f"starting {len(nodes)} hosts")
            self._start_nodes(state, plan)
        return state

    def down(self) -> bool:
        """Stop everything in reverse order and remove the network; returns whether anything was there."""
        records = self.table.records()
        state = self.state() if self._state_file.exists() else None
        if state is not None and state.nodes:
            for node in reversed(self.nodes(state)):
                node.stop()
        self.table.stop_all()
        if state is not None and state.subnet:
            HostNetwork(state.tag, ipaddress.IPv4Network(state.subnet)).remove(keep_forwarding=state.forwarding)
        if state is not None:
            shutil.rmtree(RUN / f"everlease-{state.tag}", ignore_errors=True)
        self._state_file.unlink(missing_ok=True)
        return bool(records or state)

    def purge(self) -> None:
        """Delete all data of a stack that is down."""
        if self.home.exists():
            for folder in ("anvil", "postgres", "valkey", "store", "nodes", "keys", "logs", "wallets"):
                shutil.rmtree(self.home / folder, ignore_errors=True)
            for file in ("deployments.json", "terms.json", "everlease.toml", "processes.json", "beat-schedule"):
                (self.home / file).unlink(missing_ok=True)

    def status(self) -> list[dict[str, Any]]:
        """Each recorded process: name, pid, whether it lives, its log."""
        return [
            {"name": record.name, "pid": record.pid, "alive": self.table.alive(record), "log": record.log}
            for record in self.table.records()
        ]

    def nodes(self, state: StackState) -> list[Node]:
        """The hosts of a stack, to stop them or to hurt them."""
        network = HostNetwork(state.tag, ipaddress.IPv4Network(state.subnet))
        return [Node(node, self.table, network, self.root) for node in state.nodes]

    def _draft(self, tag: str, network: HostNetwork, forwarded: bool, plan: StackPlan) -> StackState:
        return StackState(
            home=str(self.home),
            tag=tag,
            host=network.gateway,
            subnet=str(network.subnet),
            forwarding=forwarded,
            rpc_url="",
            market_url="",
            explorer_url="",
            database_url="",
            broker_url="",
            deployments="",
            tenant="",
            watcher="",
            nodes=self._node_states(tag, plan),
        )

    def _deploy(self, rpc_url: str, plan: StackPlan) -> Path:
        deployments = self.home / "deployments.json"
        treasury, insurance = (dev.development_key(index).address for index in (dev.TREASURY, dev.INSURANCE))
        log = self.table.log_of("deploy")
        servers.deploy(
            self.root, rpc_url, deployments, terms=plan.terms, treasury=treasury, insurance=insurance, log=log
        )
        return deployments

    def _market_settings(self, plan: StackPlan, explorer_url: str) -> dict[str, object]:
        return {
            "explorer_url": explorer_url,
            "watcher": dev.development_key(dev.WATCHER).address,
            "store": self.home / "store",
            "store_token_secret": self._secret("store-token"),
            "master_key_file": self.keys.folder / "master.key",
            **plan.marketplace,
        }

    def _recovery_settings(self, plan: StackPlan, broker_url: str) -> dict[str, object]:
        self.keys.put("watcher", dev.WATCHER)
        return {
            "broker_url": broker_url,
            "watcher_keystore": self.keys.path("watcher"),
            "watcher_password": self.keys.password(),
            **plan.recovery,
        }

    def _secret(self, name: str) -> str:
        file = self.keys.folder / name
        if not file.exists():
            self.keys.password()
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(48), encoding="ascii")
        return file.read_text(encoding="ascii")

    def _node_states(self, tag: str, plan: StackPlan) -> tuple[NodeState, ...]:
        network = HostNetwork(tag, ipaddress.IPv4Network("10.0.0.0/24"))
        return tuple(
            NodeState(
                index=index,
                name=f"node-{index}",
                provider=dev.development_key(dev.FIRST_PROVIDER + index).address,
                node=dev.development_key(dev.FIRST_NODE + index).address,
                netns=network.netns(index),
                data=str(self.home / "nodes" / f"node-{index}"),
                run=str(RUN / f"everlease-{tag}" / f"n{index}"),
            )
            for index in range(1, plan.nodes + 1)
        )

    def _prepare_accounts(self, rpc_url: str, deployments: Path, plan: StackPlan) -> None:
        tenant = self.keys.put("tenant", dev.TENANT)
        providers = [
            ProviderKeys(
                self.keys.put(f"provider-{index}", dev.FIRST_PROVIDER + index),
                self.keys.put(f"node-{index}", dev.FIRST_NODE + index),
            )
            for index in range(1, plan.nodes + 1)
        ]
        chain = RpcChain.connect([rpc_url])
        try:
            accounts = Accounts(chain, Deployment.load(deployments), self.home / "wallets")
            accounts.prepare(tenant, plan.tenant_dollars, providers, plan.provider_stake)
        finally:
            chain.close()

    def _start_nodes(self, state: StackState, plan: StackPlan) -> None:
        nodes = self.nodes(state)
        settings = {
            "gateway_url": state.market_url.replace("http", "ws", 1) + "/v1/node",
            "store_url": f"{state.market_url}/store",
            "deployments": state.deployments,
            "rpc_urls": [state.rpc_url],
            "watchers": [state.watcher],
            "keystore_password": self.keys.password(),
            **plan.agent,
        }
        for node in nodes:
            node.create()
            # Each asks a little more than the one before, so that an idle market has one cheapest host.
            base = {"base_rate": 50_000 + 2_000 * node.state.index, "keystore": self.keys.path(node.state.name)}
            node.start_agent({**base, **settings})
        for node in nodes:
            record = self.table.get(node.process_name)
            assert record is not None
            self.table.await_ready(record, lambda node=node: self._connected(state, node), timeout=120)  # type: ignore[misc]

    @staticmethod
    def _connected(state: StackState, node: Node) -> bool:
        try:
            answer = httpx.get(f"{state.market_url}/v1/nodes", params={"limit": 200}, timeout=5).json()
        except (httpx.HTTPError, ValueError):
            return False
        return any(item["node"] == node.state.node and item["connected"] for item in answer.get("items", []))

    def _write_project_file(self, state: StackState) -> None:
        lines = {
            "market_url": state.market_url,
            "rpc_url": state.rpc_url,
            "key_file": "keys/tenant.json",
            "password_file": "keys/password",
            "deployments": "deployments.json",
        }
        if state.nodes:
            lines["docker_socket"] = str(state.nodes[0].docker_socket)
        text = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
        (self.home / "everlease.toml").write_text("# Written by `everlease up`.\n" + text, encoding="utf-8")
