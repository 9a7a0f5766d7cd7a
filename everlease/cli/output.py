"""What commands print: a table or lines for people, one JSON document for programs."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from everlease.domain.money import from_units

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def emit_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(plain(value), indent=2, default=str) + "\n")
    sys.stdout.flush()


def emit_json_line(value: Any) -> None:
    """One JSON document in one line, for streams."""
    sys.stdout.write(json.dumps(plain(value), default=str) + "\n")
    sys.stdout.flush()


def done(as_json: bool, document: dict[str, Any], sentence: str) -> None:
    """What a command did: a document for programs, or a sentence."""
    if as_json:
        emit_json(document)
    else:
        console.print(sentence)


def plain(value: Any) -> Any:
    """Pydantic models as dictionaries, all the way down."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """A table, or one sentence where there is nothing."""
    if not rows:
        console.print(empty)
        return
    grid = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    console.print(grid)


def facts(pairs: Sequence[tuple[str, object]]) -> None:
    """Name and value, one a line."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        console.print(f"[bold]{name:<{width}}[/bold]  {value}", soft_wrap=True)


def money(units: int | None) -> str:
    """Base units for people."""
    return "-" if units is None else f"${from_units(units)}"


def short(identifier: str | None) -> str:
    """An id or address, shortened but for its ends."""
    if not identifier:
        return "-"
    return identifier if len(identifier) <= 14 else f"{identifier[:8]}…{identifier[-4:]}"


def clock(unix: float) -> str:
    """An instant by this machine's clock and zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix))


def ago(unix: float | None) -> str:
    """How long ago, for people."""
    if not unix:
        return "-"
    seconds = max(0, int(time.time() - unix))
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7200 else f"{seconds // 3600} h ago"


def minute(unix: float) -> str:
    """A time of day, to the minute, where the reader is."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix))


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{count} B"
