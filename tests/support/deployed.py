"""Contracts on a test's own Anvil, and people with keys, tokens and stake on it."""

from dataclasses import dataclass, field

from everlease.chain.base import TxReceipt
from everlease.chain.contracts import AssetCalls, Call, EscrowCalls, StakingCalls
from everlease.chain.deploy import deploy_escrow, send_and_wait
from everlease.chain.deployment import Deployment, Terms
from everlease.chain.keys import Key
from everlease.chain.rpc import RpcChain
from everlease.chain.typed_data import bid_digest, job_id, lease_id, node_auth_digest, order_digest, receipt_digest
from everlease.chain.views import Views
from everlease.domain.terms import Bid, LeaseParams, NodeAuth, Order, Receipt, lease_params
from tests.support.anvil import KEYS, Anvil

TERMS = Terms(
    answer_window=60,
    min_runtime=60,
    unbonding_period=600,
    max_lifetime=31_536_000,
    min_silence=2,
    max_silence=300,
    fee_bps=100,
    drop_penalty_bps=500,
    slash_to_job_bps=3000,
    slash_to_caller_bps=500,
    bond=100_000,
    treasury="0x" + "fe" * 20,
    insurance="0x" + "1a" * 20,
)
"""Terms for tests: short windows."""

DOLLAR = 1_000_000


@dataclass(frozen=True, slots=True)
class Market:
    """One deployment with a tenant, a watcher, a provider and its node; all hold ether and 1,000 mock dollars.

    ``orders`` and ``leases`` keep what was funded and prepared for opening, by id: calls bring it back.
    """

    anvil: Anvil
    chain: RpcChain
    deployment: Deployment
    tenant: Key
    watcher: Key
    provider: Key
    node: Key
    orders: dict[str, Order] = field(default_factory=dict)
    leases: dict[str, LeaseParams] = field(default_factory=dict)

    @property
    def escrow(self) -> EscrowCalls:
        return EscrowCalls(self.deployment)

    @property
    def staking(self) -> StakingCalls:
        return StakingCalls(self.deployment)

    @property
    def asset(self) -> AssetCalls:
        return AssetCalls(self.deployment)

    @property
    def views(self) -> Views:
        return Views(self.chain, self.deployment)

    def send(self, key: Key, call: Call) -> TxReceipt:
        """Send a call and wait until it is mined."""
        return send_and_wait(self.chain, key, call.to, call.data)

    def now(self) -> int:
        """The chain's time."""
        header = self.chain.header("latest")
        assert header is not None
        return header.timestamp

    def order(self, nonce: int = 1, **changes: int) -> Order:
        """An order of the tenant, valid for a day."""
        values = {"max_rate_per_hour": DOLLAR, "deposit": 5 * DOLLAR, "min_collateral": DOLLAR, "max_silence": 6}
        values |= {"max_epochs": 20, "epoch_fee": 1000, "deadline": self.now() + 86_400, "nonce": nonce} | changes
        return Order(tenant=self.tenant.address, watcher=self.watcher.address, job_spec="0x" + "5b" * 32, **values)

    def fund(self, order: Order) -> str:
        """Approve and fund; returns the job's id."""
        self.send(self.tenant, self.asset.approve(self.deployment.escrow, 2**128))
        self.send(self.tenant, self.escrow.fund(order, self.tenant.sign(self.order_digest(order))))
        job = job_id(self.deployment.escrow_domain, order)
        self.orders[job] = order
        return job

    def order_digest(self, order: Order) -> bytes:
        return order_digest(self.deployment.escrow_domain, order)

    def bid(self, job: str, epoch: int = 1, **changes: int) -> tuple[Bid, str]:
        """A bid of the node and its signature."""
        values = {
            "min_rate_per_hour": 1000,
            "collateral": DOLLAR,
            "deadline": self.now() + 600,
            "slot": epoch,
        } | changes
        bid = Bid(self.provider.address, self.node.address, job, epoch, **values)
        return bid, self.node.sign(bid_digest(self.deployment.escrow_domain, bid))

    def open_call(self, job: str, epoch: int = 1, rate: int = DOLLAR // 2, **changes: int) -> tuple[Call, str]:
        """The call that opens an epoch, and the lease's id."""
        bid, signature = self.bid(job, epoch, **changes)
        params = lease_params(self.orders[job], bid, rate)
        lease = lease_id(params)
        self.leases[lease] = params
        return self.escrow.open(self.orders[job], bid, signature, rate), lease

    def receipt(self, lease: str, earned: int, seen_at: int, final: bool = False, seq: int = 1) -> tuple[Receipt, str]:
        """A receipt and the watcher's signature."""
        receipt = Receipt(lease, seq, seen_at, earned, final)
        return receipt, self.watcher.sign(receipt_digest(self.deployment.escrow_domain, receipt))

    def stake(self, amount: int = 100 * DOLLAR) -> None:
        """Stake and authorise the node."""
        self.send(self.provider, self.asset.approve(self.deployment.staking, 2**128))
        self.send(self.provider, self.staking.stake(amount))
        auth = NodeAuth(self.provider.address, self.node.address, self.now() + 600, 1)
        signature = self.node.sign(node_auth_digest(self.deployment.staking_domain, auth))
        self.send(self.provider, self.staking.authorise_node(auth, signature))


def key(index: int) -> Key:
    """Anvil's development account."""
    return Key.of(bytes.fromhex(KEYS[index][2:]))


def make_market(anvil: Anvil, terms: Terms = TERMS) -> Market:
    """Deploy and hand out tokens. Accounts: 0 deployer, 1 tenant, 2 watcher, 3 provider, 4 node; 5–7 are free."""
    chain = RpcChain.connect([anvil.url])
    deployment = deploy_escrow(chain, key(0), terms)
    market = Market(anvil, chain, deployment, key(1), key(2), key(3), key(4))
    for index in (1, 3):
        market.send(key(0), market.asset.mint(key(index).address, 1000 * DOLLAR))
    return market
