"""`everlease provider answer`: suspended leases of a provider or a node, answered by hand where no agent does."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from everlease.chain.own_leases import opened_by, params_of
from everlease.chain.views import LeaseOnChain
from everlease.cli.context import Wallet, of
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.options import Json
from everlease.cli.output import clock, console, emit_json, money, short, table
from everlease.domain.lease import LeaseState
from everlease.domain.silence import bare_answer_at, clears
from everlease.domain.terms import LeaseParams
from everlease.wire.terms import SignedReceipt

BPS = 10_000


@dataclass(frozen=True, slots=True)
class Suspended:
    """A suspended lease and the newest receipt of it that is here; ``penalty`` in base units, 0 where it is cleared."""

    lease_id: str
    params: LeaseParams
    state: LeaseOnChain
    signed: SignedReceipt | None
    penalty: int
    bare_at: int

    @property
    def would_send(self) -> str:
        """What an answer sends, in words."""
        if self.penalty == 0:
            return "a receipt that clears it"
        with_what = "no receipt" if self.signed is None else "a receipt that does not clear it"
        return f"{with_what}: {money(self.penalty)} of collateral go"


def answer(
    ctx: typer.Context,
    send: Annotated[bool, typer.Option("--send", help="Send the answers; without it they are shown alone.")] = False,
    lease: Annotated[str, typer.Option("--lease", help="This lease alone: its id, or the beginning of it.")] = "",
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="The agent's folder, for the receipts that it kept.")
    ] = None,
    from_block: Annotated[
        int | None, typer.Option("--from-block", min=0, help="Read the chain from here on, not all of it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Pay the penalty where an answer costs one, unasked.")] = False,
    as_json: Json = False,
) -> None:
    """Show suspended leases, by when each is to be answered and what that costs; with --send, answer them.

    Before an answer that costs collateral you are asked.

    With the provider's key those of all its nodes, with a node's key its own.
    """
    wallet = of(ctx).wallet
    found = [it for it in suspended(wallet, data_dir, from_block) if it.lease_id.startswith(lease.lower() or "0x")]
    if lease and not found:
        raise CliError(ExitCode.NOT_FOUND, f"no suspended lease of {wallet.address} begins with {lease}")
    if send and not yes:
        _agree([it for it in found if it.penalty], wallet.chain_time())
    sent = {it.lease_id: send_answer(wallet, it) for it in found} if send else {}
    if as_json:
        emit_json({"items": [_shown(it, sent.get(it.lease_id)) for it in found]})
        return
    rows = [
        (short(it.lease_id), short(it.params.job_id), short(it.params.node), clock(it.state.exit_at), it.would_send)
        for it in found
    ]
    table(("LEASE", "JOB", "NODE", "ANSWER BY", "WOULD SEND" if not send else "SENT"), rows, empty="None is suspended.")
    if not send and any(it.penalty and wallet.chain_time() < it.bare_at for it in found):
        soonest = min(it.bare_at for it in found if it.penalty)
        console.print(f"A receipt that clears may come still: there is time until {clock(soonest)}.")


def suspended(wallet: Wallet, data_dir: Path | None, from_block: int | None) -> list[Suspended]:
    """The leases that this wallet can answer for, as owner or as node. Raises ChainError, CliError."""
    owner = wallet.views.provider_of(wallet.address)
    provider = owner if owner is not None else wallet.address
    head = wallet.chain.header("latest")
    assert head is not None
    first = wallet.deployment.block if from_block is None else from_block
    found = []
    for looked in opened_by(wallet.chain, wallet.deployment, provider, first, head.number):
        for opened in looked.found:
            if owner is not None and opened.event.node.lower() != wallet.address.lower():
                continue
            state = wallet.views.lease(opened.event.lease_id)
            if state.state is not LeaseState.SUSPENDED or head.timestamp > state.exit_at:
                continue
            params = params_of(wallet.chain, wallet.deployment, opened)
            if params is not None:
                signed = kept_receipt(data_dir, opened.event.lease_id)
                found.append(_weighed(wallet, opened.event.lease_id, params, state, signed))
    return found


def _agree(costly: list[Suspended], now: int) -> None:
    """Ask before collateral goes. Raises CliError where the answer is no, or nobody is there to ask."""
    if not costly:
        return
    lost = sum(it.penalty for it in costly)
    leases = ", ".join(short(it.lease_id) for it in costly)
    soonest = min(it.bare_at for it in costly)
    wait = f"one that does may come still, and you may wait until {clock(soonest)}" if now < soonest else "it is time"
    try:
        agreed = typer.confirm(
            f"No receipt here clears {leases}: {wait}. Answer now, and pay {money(lost)} of collateral?", err=True
        )
    except typer.Abort:
        agreed = False
    if not agreed:
        told = f"nothing was sent: answering {leases} costs {money(lost)} of collateral"
        raise CliError(ExitCode.REFUSED, f"{told}; --yes pays it, --lease answers one lease alone")


def send_answer(wallet: Wallet, it: Suspended) -> str:
    """Send it; returns the transaction's hash."""
    receipt = it.signed.receipt.to_domain() if it.signed is not None else None
    call = wallet.escrow.answer(it.params, receipt, it.signed.signature if it.signed is not None else "0x")
    return wallet.send(f"answer for lease {it.lease_id}", call).tx_hash


def kept_receipt(data_dir: Path | None, lease_id: str) -> SignedReceipt | None:
    """The newest receipt in an agent's journal, read without touching it. Raises CliError."""
    if data_dir is None:
        return None
    path = (data_dir / "journal.db").resolve()
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as journal:
            row = journal.execute("SELECT signed FROM receipt WHERE lease = ?", (lease_id,)).fetchone()
    except sqlite3.Error as error:
        raise CliError(ExitCode.UNAVAILABLE, f"the agent's journal {path} can't be read: {error}") from error
    return SignedReceipt.model_validate_json(row[0]) if row else None


def _weighed(
    wallet: Wallet, lease_id: str, params: LeaseParams, state: LeaseOnChain, signed: SignedReceipt | None
) -> Suspended:
    terms = wallet.deployment.terms
    cleared = signed is not None and clears(signed.receipt.to_domain(), params.max_silence, state.ends_at)
    penalty = 0 if cleared else params.collateral * terms.drop_penalty_bps // BPS
    bare_at = bare_answer_at(state.exit_at - terms.answer_window, state.exit_at)
    return Suspended(lease_id, params, state, signed, penalty, bare_at)


def _shown(it: Suspended, tx: str | None) -> dict[str, object]:
    return {
        "lease": it.lease_id,
        "job": it.params.job_id,
        "node": it.params.node,
        "answer_by": it.state.exit_at,
        "clears": it.penalty == 0,
        "penalty": it.penalty,
        "tx": tx,
    }
