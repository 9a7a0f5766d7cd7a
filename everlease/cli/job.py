"""`everlease job …`: launch, look at, move and end jobs."""

from pathlib import Path
from typing import Annotated

import typer

from everlease.cli import job_history, job_money
from everlease.cli.context import Context, of
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.follow import follow_events, follow_logs, print_logs, why_over
from everlease.cli.images import LocalImages
from everlease.cli.launch import Options
from everlease.cli.launch import launch as launch_job
from everlease.cli.options import JobId, Json, Limit, Reason
from everlease.cli.output import (
    ago,
    clock,
    console,
    emit_json,
    errors,
    facts,
    money,
    short,
    size,
    styled,
    table,
)
from everlease.cli.selection import find_job
from everlease.domain.job import ENDED, JobState
from everlease.wire.http import CheckpointList, JobList, JobOut, LeaseList, WishRequest
from everlease.wire.jobfile import load_job_file
from everlease.wire.spec import SpecModel

app = typer.Typer(no_args_is_help=True, help="Launch, follow, move and end jobs.")
job_money.register(app)
job_history.register(app)


@app.command(epilog="Example: everlease job launch job.yaml --wait")
def launch(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The job file.", metavar="JOB.YAML")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the job until it ends or waits for you; fails unless it succeeds.")
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Launch another job, though a launch of this file broke off before.")
    ] = False,
    queue: Annotated[
        bool, typer.Option("--queue", help="Launch also what no host of the market is large enough for, and wait.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Store the image, sign the order, post the job and fund its escrow. Again after it broke off goes on."""
    context = of(ctx)
    job = load_job_file(file)
    images = LocalImages(context.config.docker_socket)
    out = errors if as_json else console

    def posted(found: JobOut) -> None:
        out.print(styled("job ", (found.name, "bold"), f" {found.id}"), soft_wrap=True)

    try:
        launched = launch_job(
            context.market,
            context.wallet,
            images,
            job,
            lambda text: errors.print(text, style="dim", soft_wrap=True),
            Options(file, new, queue, posted),
        )
    finally:
        images.close()
    final = _until_it_ends(context, launched.job, quiet=as_json) if wait else launched.job
    if as_json:
        emit_json({"job": final, "fund_tx": launched.fund_tx})
    if wait and final.state != "SUCCEEDED":
        raise CliError(ExitCode.JOB_FAILED, why_over(final))


def _until_it_ends(context: Context, job: JobOut, *, quiet: bool) -> JobOut:
    try:
        return follow_events(context.market, job.id, quiet=quiet)
    except KeyboardInterrupt:
        told = f"job {job.id} is posted and paid for, and runs on: 'everlease job events {job.id} -f' follows it"
        raise KeyboardInterrupt(told) from None


@app.command("list", epilog="Example: everlease job list --state parked")
def list_jobs(
    ctx: typer.Context,
    state: Annotated[
        JobState | None, typer.Option("--state", case_sensitive=False, help="Only jobs in this state.")
    ] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Your jobs, newest first."""
    jobs = of(ctx).market.get("/v1/jobs", JobList, params={"limit": limit, "state": state and state.value})
    if as_json:
        emit_json(jobs)
        return
    rows = [
        (
            short(job.id),
            job.name,
            job.state,
            short(job.node),
            job.last_checkpoint_seq,
            ago(job.created_at),
            job.reason[:80],
        )
        for job in jobs.items
    ]
    empty = "You have no jobs yet." if state is None else f"None of your jobs is {state}."
    table(("ID", "NAME", "STATE", "NODE", "CHECKPOINT", "CREATED", "REASON"), rows, empty=empty)


def paid_for(spec: SpecModel) -> str:
    """Which seconds of a host the order pays for, in words."""
    if spec.checkpoint.to_domain().pays_as_served:
        return "every second served"
    return "work that is saved: of a lost host, up to its last checkpoint"


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
        ("paid for", paid_for(found.spec)),
        ("at most lost now", "-" if found.loss_bound_s is None else f"{found.loss_bound_s:.0f} s of work"),
    ]
    if found.limits is not None:
        left = found.limits
        pairs += [
            ("leases", f"{left.leases} of {left.max_leases}"),
            ("may live until", clock(left.deadline)),
            ("pays at most", f"{money(left.max_rate_per_hour)} an hour"),
        ]
    if found.wish is not None:
        pairs.insert(3, ("asked to", found.wish))
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
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends, or waits for you.")] = False,
    as_json: Json = False,
) -> None:
    """The job's history."""
    context = of(ctx)
    found = find_job(context, job)
    over = follow_events(context.market, found.id, quiet=False, as_json=as_json, until_now=not follow)
    if follow and JobState(over.state) not in ENDED:
        errors.print(why_over(over), style="dim", soft_wrap=True)


def _wish(ctx: typer.Context, job: str, verb: str, reason: str, as_json: bool, said: str) -> None:
    context = of(ctx)
    found = find_job(context, job)
    answer = context.market.post(f"/v1/jobs/{found.id}/{verb}", JobOut, WishRequest(reason=reason), spends=True)
    if as_json:
        emit_json(answer)
    else:
        console.print(
            f"{said}: {answer.name} is {answer.state} ('everlease job events {answer.id} -f' follows it)",
            soft_wrap=True,
        )


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


@app.command(epilog="Example: everlease job cancel train-mlp")
def cancel(ctx: typer.Context, job: JobId, reason: Reason = "", as_json: Json = False) -> None:
    """Stop the job; what is left of the deposit can be refunded."""
    _wish(ctx, job, "cancel", reason, as_json, "cancellation asked for")
