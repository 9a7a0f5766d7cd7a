"""What a command works with, made when it is first needed: configuration, key, chain, market."""

import os
from functools import cached_property
from pathlib import Path

import httpx
import platformdirs
import typer

from everlease.chain._generated.events import FeesSwept, StakeWithdrawn, Withdrawn
from everlease.chain.base import TxReceipt
from everlease.chain.contracts import AssetCalls, Call, EscrowCalls, Permit, StakingCalls, sign_permit
from everlease.chain.deploy import send_and_wait
from everlease.chain.deployment import Deployment
from everlease.chain.event_codec import decode_event
from everlease.chain.keys import Key, load_keystore, raw_key
from everlease.chain.rpc import RpcChain
from everlease.chain.views import Views
from everlease.cli.config import Config
from everlease.cli.errors import CliError, ExitCode, from_problem
from everlease.cli.market import Market, TokenCache
from everlease.domain.money import from_units
from everlease.wire.http import MarketOut

Moving = FeesSwept | StakeWithdrawn | Withdrawn


class Wallet:
    """One key over one deployment: what it signs and sends."""

    def __init__(self, key: Key, chain: RpcChain, deployment: Deployment) -> None:
        self.key, self.chain, self.deployment = key, chain, deployment
        self.views = Views(chain, deployment)
        self.escrow, self.staking = EscrowCalls(deployment), StakingCalls(deployment)
        self.asset = AssetCalls(deployment)

    @property
    def address(self) -> str:
        return self.key.address

    def send(self, call: Call) -> TxReceipt:
        """Send one call, wait until it is mined. Raises CallReverted, with the contract's error, before sending."""
        return send_and_wait(self.chain, self.key, call.to, call.data)

    def moved(self, receipt: TxReceipt, kind: type[Moving]) -> int:
        """Base units that a transaction moved, by its own events of this kind."""
        logs = self.chain.logs_of((self.deployment.escrow, self.deployment.staking), receipt.block_hash)
        events = [decode_event(log) for log in logs if log.tx_hash == receipt.tx_hash]
        return sum(event.amount for event in events if isinstance(event, kind))

    def permit(self, spender: str, value: int, deadline: int) -> Permit:
        """An EIP-2612 permit of this key."""
        return sign_permit(self.chain, self.deployment, self.address, spender, value, deadline, self.key.sign)

    def require_balance(self, amount: int) -> None:
        """Raise CliError unless the wallet holds ``amount`` base units."""
        held = self.views.asset_balance(self.address)
        if held < amount:
            raise CliError(
                ExitCode.MONEY, f"this takes {from_units(amount)}, the wallet {self.address} holds {from_units(held)}"
            )


class Context:
    """Lazy: a command that reads from the explorer opens no key."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def key(self) -> Key | None:
        """The wallet's key, or None where none is configured. Raises KeyRefused."""
        config = self.config
        if config.key_file is not None:
            return load_keystore(config.key_file, self.password(config.key_file))
        if config.private_key is not None:
            return raw_key(config.private_key, self.terms.chain_id)
        return None

    @cached_property
    def market(self) -> Market:
        """The marketplace, signed in when a call needs it."""
        cache = Path(platformdirs.user_cache_dir("everlease")) / "tokens.json"
        return Market(self.config.market_url, self.key, TokenCache(cache))

    @cached_property
    def terms(self) -> MarketOut:
        """What the marketplace says of itself."""
        return Market(self.config.market_url, None, TokenCache(Path(os.devnull))).terms()

    @cached_property
    def wallet(self) -> Wallet:
        """The key on its chain."""
        if self.key is None:
            raise CliError(ExitCode.REFUSED, "this takes a wallet: name its keystore with --key or EVERLEASE_KEY_FILE")
        if self.config.rpc_url is None:
            raise CliError(ExitCode.USAGE, "this takes a chain: name its RPC endpoint with --rpc or EVERLEASE_RPC_URL")
        chain = RpcChain.connect([self.config.rpc_url])
        return Wallet(self.key, chain, self._deployment(chain))

    def explorer(self, path: str, **params: object) -> dict[str, object]:
        """GET from the indexer's API."""
        base = self.terms.explorer_url
        if not base:
            raise CliError(ExitCode.UNAVAILABLE, "this marketplace names no explorer")
        given = {key: str(value) for key, value in params.items() if value is not None}
        try:
            response = httpx.get(f"{base.rstrip('/')}/v1/explorer/{path}", params=given, timeout=30)
        except httpx.HTTPError as error:
            raise CliError(ExitCode.UNAVAILABLE, f"the explorer at {base} can't be reached: {error}") from error
        if not response.is_success:
            raise from_problem(response)
        answer = response.json()
        return answer if isinstance(answer, dict) else {"items": answer}

    def _deployment(self, chain: RpcChain) -> Deployment:
        if self.config.deployments is not None:
            deployment = Deployment.load(self.config.deployments)
        else:
            deployment = Deployment.read(chain, self.terms.escrow, 0)
        deployment.check_chain(chain)
        return deployment

    def password(self, keystore: Path) -> str:
        """The keystore's password: configured, in the file beside it, or asked for."""
        config = self.config
        if config.password is not None:
            return config.password
        if config.password_file is not None:
            return config.password_file.read_text(encoding="utf-8").rstrip("\n")
        beside = keystore.parent / "password"
        if beside.is_file():
            return beside.read_text(encoding="utf-8").rstrip("\n")
        return str(typer.prompt(f"Password for {keystore.name}", hide_input=True, err=True))


def of(ctx: typer.Context) -> Context:
    """The command's context, set by the root callback."""
    found = ctx.find_root().obj
    assert isinstance(found, Context)
    return found
