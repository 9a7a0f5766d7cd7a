"""What commands print: a table or lines for people, one JSON document for programs."""

import json
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from everlease.domain.money import from_units

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and new line, those that turn the direction of writing, and halves of surrogate pairs."""
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m|\r)")


class _Terminal(Console):
    """Strings are what they say: no markup, no emoji codes, nothing that moves a terminal's cursor or writes to it.

    Much of what is printed are strangers' words: reasons, names, what hosts and services say. Own styles: ``styled``.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def printable(text: str) -> str:
    """Without what a terminal would act upon; new lines and tabs stay."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def printable_line(text: str) -> str:
    """The same in one line, so that it can't pass for the lines around it."""
    return printable(text).replace("\n", " ").replace("\t", " ")


def printable_log(text: str) -> str:
    """The same, but a program may colour what it prints and write over its own line."""
    return "".join(part if _COLOUR.fullmatch(part) else printable(part) for part in _COLOUR.split(text))


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text of which some is bold, dim or coloured: pairs of text and style."""
    return Text.assemble(
        *(printable(part) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts)
    )


console = _Terminal()
errors = _Terminal(stderr=True)


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
        grid.add_row(*(printable_line(str(cell)) for cell in row))
    console.print(grid)


def facts(pairs: Sequence[tuple[str, object]]) -> None:
    """Name and value, one a line."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        console.print(styled((f"{name:<{width}}", "bold"), f"  {printable_line(str(value))}"), soft_wrap=True)


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


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{count} B"
