"""What a command works with, made when it is first needed: configuration, key, chain, market."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

import httpx
import platformdirs
import typer

from everlease.chain._generated.events import FeesSwept, StakeWithdrawn, Withdrawn
from everlease.chain.base import TxReceipt
from everlease.chain.contracts import NO_PERMIT, AssetCalls, Call, EscrowCalls, Permit, StakingCalls, sign_permit
from everlease.chain.deployment import Deployment
from everlease.chain.event_codec import decode_event
from everlease.chain.keys import Key, raw_key
from everlease.chain.rpc import RpcChain
from everlease.chain.views import Views
from everlease.chain.wallet_queue import WalletQueue
from everlease.cli.config import Config
from everlease.cli.errors import CliError, ExitCode, from_problem
from everlease.cli.market import Market, TokenCache
from everlease.cli.output import errors
from everlease.cli.unlock import Unlocked, unlock
from everlease.domain.money import from_units
from everlease.wire.http import MarketOut

Moving = FeesSwept | StakeWithdrawn | Withdrawn


_PERMIT_S = 3600


class Wallet:
    """One key over one deployment: what it signs and sends. ``home`` holds a folder for each wallet, of what its
    commands have under way; ``note`` gets a sentence where one of them waits or was interrupted before."""

    def __init__(
        self,
        key: Key,
        chain: RpcChain,
        deployment: Deployment,
        home: Path | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.key, self.chain, self.deployment = key, chain, deployment
        self.views = Views(chain, deployment)
        self.escrow, self.staking = EscrowCalls(deployment), StakingCalls(deployment)
        self.asset = AssetCalls(deployment)
        home = home or Path(platformdirs.user_state_dir("everlease")) / "wallets"
        self.folder = home / f"{deployment.chain_id}-{key.address}"
        self._queue = WalletQueue(chain, key, self.folder, note)

    @property
    def address(self) -> str:
        return self.key.address

    def turn(self) -> AbstractContextManager[None]:
        """No other command on this machine sends for the wallet meanwhile; see WalletQueue.turn."""
        return self._queue.turn()

    def settle(self, intent: str = "") -> TxReceipt | None:
        """Bring what an interrupted command left under way to its end; see WalletQueue.settle."""
        return self._queue.settle(intent)

    def send(self, intent: str, call: Call) -> TxReceipt:
        """Send one call, wait until it is mined; see WalletQueue.send. ``intent``: what it does, in words."""
        return self._queue.send(intent, lambda: call)

    def pay(self, intent: str, spender: str, units: int, call: Callable[[Permit], Call]) -> TxReceipt:
        """Send a call by which ``spender`` takes ``units`` of the wallet, on the allowance if that is enough, else with
        a permit. Balance, allowance and the permit's nonce are read in the wallet's turn. Raises CliError, and what
        WalletQueue.send raises."""

        def make() -> Call:
            self.require_balance(units)
            enough = self.views.allowance(self.address, spender) >= units
            return call(NO_PERMIT if enough else self._permit(spender, units))

        return self._queue.send(intent, make)

    def chain_time(self) -> int:
        """Unix seconds of the newest block."""
        header = self.chain.header("latest")
        assert header is not None
        return header.timestamp

    def moved(self, receipt: TxReceipt, kind: type[Moving]) -> int:
        """Base units that a transaction moved, by its own events of this kind."""
        logs = self.chain.logs_of((self.deployment.escrow, self.deployment.staking), receipt.block_hash)
        events = [decode_event(log) for log in logs if log.tx_hash == receipt.tx_hash]
        return sum(event.amount for event in events if isinstance(event, kind))

    def _permit(self, spender: str, value: int) -> Permit:
        """An EIP-2612 permit of this key."""
        deadline = int(time.time()) + _PERMIT_S
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
            return self.unlock(config.key_file).key
        if config.private_key is not None:
            return raw_key(config.private_key, self.terms.chain_id)
        return None

    @cached_property
    def market(self) -> Market:
        """The marketplace, signed in when a call needs it."""
        cache = Path(platformdirs.user_cache_dir("everlease")) / "tokens.json"
        return Market(self.config.market_url, self.key, TokenCache(cache, _note))

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
        return Wallet(self.key, chain, self._deployment(chain), note=_note)

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

    def unlock(self, keystore: Path) -> Unlocked:
        """Open a keystore with the password that is configured for it; see everlease.cli.unlock."""
        config = self.config
        if config.password_is_for(keystore):
            return unlock(keystore, config.password, config.password_file)
        return unlock(keystore)


def _note(text: str) -> None:
    errors.print(text, style="dim")


def of(ctx: typer.Context) -> Context:
    """The command's context, set by the root callback."""
    found = ctx.find_root().obj
    assert isinstance(found, Context)
    return found
