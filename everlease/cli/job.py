"""`everlease job …`: launch, look at, move and end jobs."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from everlease.chain._generated.events import FeesSwept
from everlease.cli.context import Context, of
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.follow import follow_events, follow_logs, print_logs
from everlease.cli.images import LocalImages
from everlease.cli.launch import launch as launch_job
from everlease.cli.options import JobId, Json, Limit, Reason
from everlease.cli.output import ago, console, emit_json, errors, facts, money, short, size, table
from everlease.cli.outputs import fetch_outputs
from everlease.wire.http import CheckpointList, CostOut, JobList, JobOut, LeaseList, WishRequest
from everlease.wire.jobfile import load_job_file

app = typer.Typer(no_args_is_help=True, help="Launch, follow, move and end jobs.")


def find_job(context: Context, wanted: str) -> JobOut:
    """The job with this id, or the only one of the wallet's whose id or name begins like this."""
    if len(wanted) == 66:
        return context.market.get(f"/v1/jobs/{wanted.lower()}", JobOut)
    jobs = context.market.get("/v1/jobs", JobList, params={"limit": 200}).items
    found = [job for job in jobs if job.id.startswith(wanted.lower()) or job.name == wanted]
    if not found:
        raise CliError(ExitCode.NOT_FOUND, f"you have no job {wanted!r}: 'everlease job list' shows them")
    if len(found) > 1:
        raise CliError(ExitCode.INVALID, f"{wanted!r} fits {len(found)} jobs: give more of the id")
    return found[0]


@app.command(epilog="Example: everlease job launch job.yaml --wait")
def launch(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The job file.", metavar="JOB.YAML")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the job until it ends; fails unless it succeeds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Store the image, sign the order, post the job and fund its escrow."""
    context = of(ctx)
    job = load_job_file(file)
    images = LocalImages(context.config.docker_socket)
    try:
        launched = launch_job(
            context.market, context.wallet, images, job, lambda text: errors.print(f"[dim]{text}[/dim]")
        )
    finally:
        images.close()
    if not as_json:
        console.print(f"job [bold]{launched.job.name}[/bold] {launched.job.id}", soft_wrap=True)
    final = launched.job
    if wait:
        final = follow_events(context.market, launched.job.id, quiet=as_json)
    if as_json:
        emit_json({"job": final, "fund_tx": launched.fund_tx})
    if wait and final.state != "SUCCEEDED":
        raise CliError(ExitCode.JOB_FAILED, f"the job ended as {final.state}: {final.reason or 'see its logs'}")


@app.command("list", epilog="Example: everlease job list --json")
def list_jobs(ctx: typer.Context, limit: Limit = 50, as_json: Json = False) -> None:
    """Your jobs, newest first."""
    jobs = of(ctx).market.get("/v1/jobs", JobList, params={"limit": limit})
    if as_json:
        emit_json(jobs)
        return
    rows = [
        (short(job.id), job.name, job.state, short(job.node), job.epoch, job.last_checkpoint_seq, ago(job.created_at))
        for job in jobs.items
    ]
    table(("ID", "NAME", "STATE", "NODE", "EPOCH", "CHECKPOINT", "CREATED"), rows, empty="You have no jobs yet.")


@app.command(epilog="Example: everlease job show train-mlp")
def show(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """One job: state, host, leases and checkpoints."""
    context = of(ctx)
    found = find_job(context, job)
    leases = context.market.get(f"/v1/jobs/{found.id}/leases", LeaseList)
    checkpoints = context.market.get(f"/v1/jobs/{found.id}/checkpoints", CheckpointList, params={"limit": 10})
    if as_json:
        emit_json({"job": found, "leases": leases.items, "checkpoints": checkpoints.items})
        return
    pairs: list[tuple[str, object]] = [
        ("id", found.id),
        ("name", found.name),
        ("state", f"{found.state}  {found.reason}".strip()),
        ("host", found.node or "-"),
        ("mode", found.mode or "-"),
        ("epoch", found.epoch),
        ("recoveries", found.recoveries),
        ("last checkpoint", f"{found.last_checkpoint_seq}, {ago(found.last_checkpoint_at)}"),
        ("at most lost now", "-" if found.loss_bound_s is None else f"{found.loss_bound_s:.0f} s of work"),
    ]
    if found.exit_code is not None:
        pairs.append(("exit code", found.exit_code))
    facts(pairs)
    rows = [
        (it.epoch, short(it.node), it.state, money(it.rate_per_hour), f"{it.earned_s} s", money(it.paid))
        for it in leases.items
    ]
    table(("\nEPOCH", "\nNODE", "\nLEASE", "\nRATE/H", "\nEARNED", "\nPAID"), rows, empty="\nNo lease yet.")
    taken = [
        (it.seq, it.mode, size(it.logical_bytes), size(it.new_bytes), f"{it.pause_s:.2f} s", ago(it.committed_at))
        for it in checkpoints.items
    ]
    table(("\nCHECKPOINT", "\nMODE", "\nSIZE", "\nNEW", "\nPAUSE", "\nCOMMITTED"), taken, empty="\nNo checkpoint yet.")


@app.command(epilog="Example: everlease job logs train-mlp -f")
def logs(
    ctx: typer.Context,
    job: JobId,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on as output arrives, until the job ends.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What the job printed, across all its hosts."""
    context = of(ctx)
    found = find_job(context, job)
    (follow_logs if follow else print_logs)(context.market, found.id, as_json=as_json)


@app.command(epilog="Example: everlease job events train-mlp -f")
def events(
    ctx: typer.Context,
    job: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends.")] = False,
    as_json: Json = False,
) -> None:
    """The job's history."""
    context = of(ctx)
    found = find_job(context, job)
    follow_events(context.market, found.id, quiet=False, as_json=as_json, until_now=not follow)


def _wish(ctx: typer.Context, job: str, verb: str, reason: str, as_json: bool, said: str) -> None:
    context = of(ctx)
    found = find_job(context, job)
    answer = context.market.post(f"/v1/jobs/{found.id}/{verb}", JobOut, WishRequest(reason=reason), spends=True)
    if as_json:
        emit_json(answer)
    else:
        console.print(
            f"{said}: {answer.name} is {answer.state} ('everlease job events {short_name(answer)} -f' follows it)"
        )


def short_name(job: JobOut) -> str:
    """How to name the job in the next command."""
    return job.name


@app.command(epilog="Example: everlease job checkpoint train-mlp")
def checkpoint(ctx: typer.Context, job: JobId, reason: Reason = "", as_json: Json = False) -> None:
    """Take a checkpoint now."""
    _wish(ctx, job, "checkpoint", reason, as_json, "checkpoint asked for")


@app.command(epilog="Example: everlease job migrate train-mlp --reason 'cheaper host'")
def migrate(ctx: typer.Context, job: JobId, reason: Reason = "", as_json: Json = False) -> None:
    """Move to another host with nothing lost."""
    _wish(ctx, job, "migrate", reason, as_json, "migration asked for")


@app.command(epilog="Example: everlease job hibernate train-mlp")
def hibernate(ctx: typer.Context, job: JobId, reason: Reason = "", as_json: Json = False) -> None:
    """Checkpoint, close the lease and pay nothing until it is resumed."""
    _wish(ctx, job, "hibernate", reason, as_json, "hibernation asked for")


@app.command(epilog="Example: everlease job resume train-mlp")
def resume(ctx: typer.Context, job: JobId, reason: Reason = "", as_json: Json = False) -> None:
    """Go on, memory and all, on whichever host wins."""
    _wish(ctx, job, "resume", reason, as_json, "resumption asked for")


@app.command(epilog="Example: everlease job cancel train-mlp")
def cancel(ctx: typer.Context, job: JobId, reason: Reason = "", as_json: Json = False) -> None:
    """Stop the job; what is left of the deposit can be refunded."""
    _wish(ctx, job, "cancel", reason, as_json, "cancellation asked for")


@app.command(epilog="Example: everlease job cost train-mlp")
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


@app.command("top-up", epilog="Example: everlease job top-up train-mlp 1.50")
def top_up(
    ctx: typer.Context, job: JobId, amount: Annotated[str, typer.Argument(help="Dollars.")], as_json: Json = False
) -> None:
    """Add escrow to a job; an exhausted one goes on."""
    from everlease.cli.payments import top_up as pay

    context = of(ctx)
    found = find_job(context, job)
    tx = pay(context.wallet, found.id, amount)
    _done(as_json, {"job": found.id, "tx": tx}, f"{amount} added to {found.name} ({short(tx)})")


@app.command(epilog="Example: everlease job refund train-mlp")
def refund(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Take back what no lease has set aside, and withdraw it to the wallet."""
    from everlease.cli.payments import refund_and_withdraw

    context = of(ctx)
    found = find_job(context, job)
    amount = refund_and_withdraw(context.wallet, found.order.to_domain())
    _done(as_json, {"job": found.id, "withdrawn": amount}, f"{money(amount)} withdrawn to {context.wallet.address}")


@app.command("sweep-fees", epilog=f"Example: everlease job sweep-fees 0x{'ab' * 32}")
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
    swept = wallet.moved(wallet.send(wallet.escrow.sweep_fees(job_id)), FeesSwept) if known.fees else 0
    told = f"{money(swept)} of fees credited to the treasury" if swept else "there are no fees to sweep"
    _done(as_json, {"job": job_id, "swept": swept}, told)


@app.command(epilog="Example: everlease job outputs train-mlp --to results/")
def outputs(
    ctx: typer.Context,
    job: JobId,
    to: Annotated[Path, typer.Option("--to", help="A folder that does not exist yet, or is empty.")] = Path("outputs"),
    as_json: Json = False,
) -> None:
    """Fetch the files of the job's last checkpoint, decrypted with keys sealed to this call."""
    context = of(ctx)
    found = find_job(context, job)
    fetched = fetch_outputs(context.market, found.id, to)
    _done(
        as_json,
        {"job": found.id, "folder": str(to), "seq": fetched.seq, "bytes": fetched.size, "files": fetched.files},
        f"{fetched.files} files, {size(fetched.size)}, of checkpoint {fetched.seq} are in {to}",
    )


def _done(as_json: bool, document: dict[str, Any], sentence: str) -> None:
    if as_json:
        emit_json(document)
    else:
        console.print(sentence)
