"""Options and arguments that several commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
JobId = Annotated[str, typer.Argument(help="The job's name, or its id or the beginning of it (0x…).", metavar="JOB")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the job's history.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")]
