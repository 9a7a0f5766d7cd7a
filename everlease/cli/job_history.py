"""`everlease job checkpoints | resume | outputs`: a job's checkpoints, to go on from and to look into."""

import time
from pathlib import Path
from typing import Annotated

import typer

from everlease.cli import payments
from everlease.cli.context import Context, of
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.job_money import MAX_LEASES, deadline_in, dollars
from everlease.cli.options import JobId, Json, Limit, Reason
from everlease.cli.output import ago, clock, console, done, emit_json, money, short, size, table
from everlease.cli.outputs import fetch_outputs
from everlease.cli.selection import find_job
from everlease.domain.job import RESUMABLE, JobState
from everlease.domain.money import pay_for
from everlease.wire.http import CheckpointList, CheckpointOut, JobOut, WishRequest

From = Annotated[
    int | None, typer.Option("--from", min=1, help="A checkpoint's number, as 'job checkpoints' lists it.")
]
FromOrZero = Annotated[
    int | None,
    typer.Option(
        "--from", min=0, help="A checkpoint's number, as 'job checkpoints' lists it; 0 is the job's beginning."
    ),
]
_SOON_S = 60
"""An order whose deadline is nearer opens no lease that is worth it."""


def register(app: typer.Typer) -> None:
    """Add the commands to `everlease job`."""
    app.command(epilog="Example: everlease job checkpoints train-mlp")(checkpoints)
    app.command(epilog="Example: everlease job resume train-mlp --from 12 --top-up 1.50 --lifetime 3d")(resume)
    app.command(epilog="Example: everlease job outputs train-mlp --to results/")(outputs)


def checkpoints(ctx: typer.Context, job: JobId, limit: Limit = 50, as_json: Json = False) -> None:
    """The checkpoints that are kept, newest first.

    'job resume --from' goes on from any that is neither final nor damaged.
    """
    context = of(ctx)
    found = find_job(context, job)
    params = {"limit": limit, "kept": True}
    listed = context.market.get(f"/v1/jobs/{found.id}/checkpoints", CheckpointList, params=params)
    if as_json:
        emit_json(listed)
        return
    rows = [
        (it.seq, ago(it.taken_at), it.mode, short(it.provider), size(it.logical_bytes), _remarks(it), _until(it))
        for it in listed.items
    ]
    table(("SEQ", "TAKEN", "MODE", "PROVIDER", "SIZE", "", "KEPT UNTIL"), rows, empty="No checkpoint is kept.")


def _remarks(it: CheckpointOut) -> str:
    words = [word for word, holds in (("head", it.head), ("final", it.final), ("superseded", it.superseded)) if holds]
    return ", ".join([*words, *([f"damaged: {it.damaged}"] if it.damaged else [])])


def _until(it: CheckpointOut) -> str:
    return "-" if it.kept_until is None else clock(it.kept_until)


def resume(
    ctx: typer.Context,
    job: JobId,
    seq: FromOrZero = None,
    top_up: Annotated[str | None, typer.Option("--top-up", help="Dollars to add to its escrow.")] = None,
    lifetime: Annotated[
        str | None, typer.Option("--lifetime", help="How long from now the job may live, like 14d or 36h.")
    ] = None,
    max_leases: Annotated[
        int | None, typer.Option("--max-leases", min=1, max=MAX_LEASES, help="How many leases it may have in all.")
    ] = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Let a job go on that waits, hibernates, is parked, has no money left, or has succeeded or failed.

    From its last checkpoint, or with --from another that is kept or 0 for the beginning, on whichever host wins.

    With --top-up, --lifetime and --max-leases its order gets what it lacks. Nothing is paid where that is refused.
    """
    context = of(ctx)
    found = find_job(context, job)
    _check_state(found)
    units = 0 if top_up is None else dollars(top_up)
    deadline = None if lifetime is None else deadline_in(lifetime)
    _check_terms(context, found, units, deadline, max_leases)
    wish = WishRequest(reason=reason, checkpoint_seq=seq)
    answer = context.market.post(f"/v1/jobs/{found.id}/resume", JobOut, wish, spends=True)
    if deadline is not None or max_leases is not None:
        payments.extend(context.wallet, payments.own_order(context.wallet, found), deadline, max_leases, None)
    tx = payments.top_up(context.wallet, found.id, units) if units else None
    if as_json:
        emit_json({"job": answer, "top_up_tx": tx})
        return
    paid = f", {money(units)} added ({short(tx)})" if tx else ""
    place = "" if seq is None else f" from checkpoint {seq}" if seq else " from the beginning"
    told = f"resumption asked for{place}{paid}"
    console.print(f"{told}: 'everlease job events {answer.id} -f' follows it", soft_wrap=True)


def _check_state(job: JobOut) -> None:
    """Raise CliError for a job that no terms let go on."""
    state = JobState(job.state)
    if state in RESUMABLE:
        return
    told = f"is {state}, and only a job that is {', '.join(sorted(RESUMABLE))} can be resumed"
    if state in (JobState.CANCELLED, JobState.CANCELLING):
        told = f"is {state} and stays so: 'job outputs' downloads what is kept of it"
    elif state is JobState.PENDING:
        told = f"was not started yet: 'everlease job fund {job.id}' pays its deposit, and it starts by itself"
    raise CliError(ExitCode.REFUSED, f"{job.name} {told}")


def _check_terms(context: Context, job: JobOut, units: int, deadline: int | None, max_leases: int | None) -> None:
    """Whether another lease could be opened with what is asked for, as the chain has it. Raises CliError."""
    wallet = context.wallet
    order = payments.own_order(wallet, job)
    known, terms = wallet.views.job(job.id), wallet.deployment.terms
    if known.cancelled:
        told = "was cancelled on chain, so nothing can run for it again: 'job outputs' downloads its checkpoints"
        raise CliError(ExitCode.REFUSED, f"{job.name} {told}")
    if not known.funded:
        raise CliError(ExitCode.REFUSED, f"the deposit of {job.name} was never paid: launch it anew")
    wallet.require_balance(units)
    limits = payments.raised(wallet, wallet.views.limits(order), deadline, max_leases, None)
    lacks = []
    if limits.deadline < time.time() + _SOON_S:
        lacks.append("its deadline has come: add --lifetime 3d")
    if known.epochs >= limits.max_epochs:
        lacks.append(f"its {limits.max_epochs} leases are used up: add --max-leases {limits.max_epochs + 10}")
    needed = pay_for(limits.max_rate_per_hour, terms.min_runtime) + terms.bond + order.epoch_fee
    # What the last lease has set aside comes back once it is closed.
    if not known.active and known.free + units < needed:
        lacks.append(f"its escrow holds {money(known.free)}, and a lease needs {money(needed)}: add --top-up")
    if lacks:
        raise CliError(ExitCode.REFUSED, f"{job.name} can't go on as it is, and nothing was sent: {'; '.join(lacks)}")


def outputs(
    ctx: typer.Context,
    job: JobId,
    to: Annotated[Path, typer.Option("--to", help="A folder that does not exist yet, or is empty.")] = Path("outputs"),
    seq: From = None,
    as_json: Json = False,
) -> None:
    """Download the files of the job's last checkpoint, or with --from of another that is kept."""
    context = of(ctx)
    found = find_job(context, job)
    fetched = fetch_outputs(context.market, found.id, to, seq)
    done(
        as_json,
        {"job": found.id, "folder": str(to), "seq": fetched.seq, "bytes": fetched.size, "files": fetched.files},
        f"{fetched.files} files, {size(fetched.size)}, of checkpoint {fetched.seq} are in {to}",
    )
