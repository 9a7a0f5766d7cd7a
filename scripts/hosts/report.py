"""report.json: {scenario: {host: {ok, seconds, note, code}}}, written whole after each scenario."""

import json
from pathlib import Path
from typing import Any


class Report:
    """``code`` names what the guests ran: a resumed run plays again what passed with other code."""

    def __init__(self, path: Path, code: str, *, fresh: bool) -> None:
        self._path, self._code = path, code
        self._rows: dict[str, dict[str, dict[str, Any]]] = {}
        self._mine: list[bool] = []
        if path.exists() and not fresh:
            self._rows = json.loads(path.read_text(encoding="utf-8"))

    def add(self, scenario: str, host: str, *, ok: bool, seconds: float, note: str) -> None:
        """Keep one result."""
        row = {"ok": ok, "seconds": round(seconds), "note": note, "code": self._code}
        self._rows.setdefault(scenario, {})[host] = row
        self._mine.append(ok)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._rows, indent=1), encoding="utf-8")
        part.replace(self._path)

    def passed(self, scenario: str, host: str) -> bool:
        """Whether this passed before with the same code."""
        row = self._rows.get(scenario, {}).get(host)
        return row is not None and bool(row["ok"]) and row.get("code") == self._code

    def all_ok(self) -> bool:
        """Whether everything of this run held."""
        return bool(self._mine) and all(self._mine)

    def summary(self) -> str:
        return f"{sum(self._mine)} of {len(self._mine)} scenario runs held"
