"""`everlease job cost | fund | top-up | extend | refund | sweep-fees`: a job's money and the limits of its order."""

import re
import time
from typing import Annotated

import typer

from everlease.chain._generated.events import FeesSwept
from everlease.cli import payments
from everlease.cli.context import of
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.launches import Launches
from everlease.cli.options import JobId, Json
from everlease.cli.output import clock, done, emit_json, facts, money, short
from everlease.cli.selection import find_job
from everlease.domain.job import ENDED, JobState
from everlease.domain.money import to_units
from everlease.wire.http import CostOut, JobOut, WishRequest
from everlease.wire.jobfile import parse_duration

MAX_LEASES = 1_000_000
"""The most that an order may have."""
_WAITS_FOR_RESUME = ENDED | {JobState.HIBERNATED, JobState.PARKED}
"""States in which money alone starts nothing."""


def register(app: typer.Typer) -> None:
    """Add the commands to `everlease job`."""
    app.command(epilog="Example: everlease job cost train-mlp")(cost)
    app.command(epilog="Example: everlease job fund train-mlp")(fund)
    app.command("top-up", epilog="Example: everlease job top-up train-mlp 1.50")(top_up)
    app.command(epilog="Example: everlease job extend train-mlp --lifetime 14d --max-price-per-hour 0.80")(extend)
    app.command(epilog="Example: everlease job refund train-mlp")(refund)
    app.command("sweep-fees", epilog=f"Example: everlease job sweep-fees 0x{'ab' * 32}")(sweep_fees)


def cost(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Where the deposit is."""
    context = of(ctx)
    found = find_job(context, job)
    bill = context.market.get(f"/v1/jobs/{found.id}/cost", CostOut)
    if as_json:
        emit_json(bill)
        return
    facts(
        [
            ("deposited", money(bill.deposited)),
            ("paid to providers", money(bill.paid)),
            ("earned, not collected yet", money(bill.owed)),
            ("in escrow", money(bill.balance)),
            ("of that set aside for leases", money(bill.reserved)),
            ("refunded", money(bill.refunded)),
            ("refundable now", money(bill.refundable)),
            ("rate an hour", money(bill.rate_per_hour)),
            ("served", f"{bill.served_s} s"),
            ("lasts for", "-" if bill.runs_for_s is None else f"{bill.runs_for_s} s more"),
        ]
    )


def fund(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Pay the deposit of a posted job whose launch broke off. Again is fine: it is paid once."""
    context = of(ctx)
    found = find_job(context, job)
    wallet, order = context.wallet, payments.own_order(context.wallet, found)
    if not Launches(wallet.folder / "launches").has(found.id):
        payments.require_signature(wallet, found)
    if JobState(found.state) in ENDED | {JobState.CANCELLING}:
        raise CliError(ExitCode.REFUSED, f"{found.name} is {found.state}: launch it anew")
    tx = payments.fund(wallet, order)
    Launches(wallet.folder / "launches").forget(found.id)
    paid = f"deposit of {money(order.deposit)} for {found.name} paid ({short(tx)})"
    done(as_json, {"job": found.id, "tx": tx}, paid if tx else f"the deposit of {found.name} was paid already")


def top_up(
    ctx: typer.Context,
    job: JobId,
    amount: Annotated[str, typer.Argument(help="Dollars.")],
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume", help="What to do if the job has ended, hibernates or is parked; else asked."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add escrow to a job. An exhausted one goes on; whether an ended, hibernated or parked one shall, is asked."""
    context = of(ctx)
    units = dollars(amount)
    found = find_job(context, job)
    payments.own_order(context.wallet, found)
    context.wallet.require_balance(units)
    waits = JobState(found.state) in _WAITS_FOR_RESUME
    resumes = waits and (_ask(found) if resume is None else resume)
    if resumes:
        # Before the money goes: where the marketplace refuses, nothing is paid.
        context.market.post(f"/v1/jobs/{found.id}/resume", JobOut, WishRequest(reason="topped up"), spends=True)
    tx = payments.top_up(context.wallet, found.id, units)
    told = f"{amount} added to {found.name} ({short(tx)})" + (", which is asked to go on" if resumes else "")
    done(as_json, {"job": found.id, "tx": tx, "resumed": resumes}, told)


def _ask(job: JobOut) -> bool:
    """Whether to resume a job that money alone doesn't start. Raises CliError where the answer is that it has ended."""
    try:
        yes = typer.confirm(
            f"{job.name} is {job.state}, and money alone doesn't start it: resume it as well?", err=True
        )
    except typer.Abort:
        raise CliError(
            ExitCode.REFUSED,
            f"{job.name} is {job.state}, and nothing was paid: say with --resume or --no-resume whether it shall go on",
        ) from None
    if not yes and JobState(job.state) in ENDED:
        raise CliError(ExitCode.REFUSED, f"{job.name} has ended, and nothing was paid: --no-resume pays all the same")
    return yes


def extend(
    ctx: typer.Context,
    job: JobId,
    lifetime: Annotated[
        str | None, typer.Option("--lifetime", help="How long from now the job may live, like 14d or 36h.")
    ] = None,
    max_leases: Annotated[
        int | None, typer.Option("--max-leases", min=1, max=MAX_LEASES, help="How many leases it may have in all.")
    ] = None,
    max_price: Annotated[
        str | None, typer.Option("--max-price-per-hour", help="The most it pays, in dollars an hour.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Raise a job's deadline, its number of leases or its highest price; none can be lowered."""
    if lifetime is None and max_leases is None and max_price is None:
        raise CliError(ExitCode.USAGE, "say what to raise: --lifetime, --max-leases or --max-price-per-hour")
    context = of(ctx)
    deadline = None if lifetime is None else deadline_in(lifetime)
    rate = None if max_price is None else to_units(max_price)
    found = find_job(context, job)
    order = payments.own_order(context.wallet, found)
    limits, tx = payments.extend(context.wallet, order, deadline, max_leases, rate)
    until = clock(limits.deadline)
    done(
        as_json,
        {
            "job": found.id,
            "deadline": limits.deadline,
            "max_leases": limits.max_epochs,
            "max_rate_per_hour": limits.max_rate_per_hour,
            "tx": tx,
        },
        f"{found.name} may live until {until}, have {limits.max_epochs} leases and pay up to "
        f"{money(limits.max_rate_per_hour)} an hour" + ("" if tx else ", as before"),
    )


def dollars(amount: str) -> int:
    """Base units of an amount to pay; raises CliError where it is zero, and what ``to_units`` raises."""
    units = to_units(amount)
    if units == 0:
        raise CliError(ExitCode.INVALID, "the amount is zero: give a positive number of dollars")
    return units


def deadline_in(lifetime: str) -> int:
    """Unix seconds so long from now; raises CliError."""
    try:
        return int(time.time()) + parse_duration(lifetime)
    except ValueError as error:
        raise CliError(ExitCode.INVALID, f"--lifetime: {error}") from None


def refund(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Take back what no lease has set aside, and withdraw it to the wallet."""
    context = of(ctx)
    found = find_job(context, job)
    amount = payments.refund_and_withdraw(context.wallet, payments.own_order(context.wallet, found))
    done(as_json, {"job": found.id, "withdrawn": amount}, f"{money(amount)} withdrawn to {context.wallet.address}")


def sweep_fees(
    ctx: typer.Context,
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job's whole id; of any tenant.")],
    as_json: Json = False,
) -> None:
    """Credit the treasury with the fees withheld in a job's ended leases; anyone may, for gas."""
    if not re.fullmatch(r"0x[0-9a-fA-F]{64}", job_id):
        raise CliError(ExitCode.INVALID, f"{job_id!r} is no job id: give 0x and 64 hexadecimal digits")
    wallet = of(ctx).wallet
    known = wallet.views.job(job_id)
    if not known.funded:
        raise CliError(ExitCode.NOT_FOUND, f"the escrow {wallet.deployment.escrow} was never paid for a job {job_id}")
    call = wallet.escrow.sweep_fees(job_id)
    swept = wallet.moved(wallet.send(f"sweep of the fees of job {job_id}", call), FeesSwept) if known.fees else 0
    told = f"{money(swept)} of fees credited to the treasury" if swept else "there are no fees to sweep"
    done(as_json, {"job": job_id, "swept": swept}, told)
