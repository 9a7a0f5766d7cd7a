"""report.json: {scenario: {host: {ok, seconds, note, code}}}, written whole after each scenario."""

import json
from pathlib import Path
from typing import Any

from hosts.folders import locked


class Report:
    """``code`` names what the guests ran: a resumed run plays again what passed with other code.

    Columns and calls of the bench that are played side by side write to the same file.
    """

    def __init__(self, path: Path, code: str, *, fresh: bool) -> None:
        self._path, self._code = path, code
        self._mine: list[bool] = []
        if fresh:
            path.unlink(missing_ok=True)

    def add(self, scenario: str, host: str, *, ok: bool, seconds: float, note: str) -> None:
        """Keep one result."""
        row = {"ok": ok, "seconds": round(seconds), "note": note, "code": self._code}
        with locked(self._path.with_suffix(".lock")):
            self._mine.append(ok)
            rows = self._rows()
            rows.setdefault(scenario, {})[host] = row
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(rows, indent=1), encoding="utf-8")
            part.replace(self._path)

    def _rows(self) -> dict[str, dict[str, dict[str, Any]]]:
        return dict(json.loads(self._path.read_text(encoding="utf-8"))) if self._path.exists() else {}

    def passed(self, scenario: str, host: str) -> bool:
        """Whether this passed before with the same code."""
        row = self._rows().get(scenario, {}).get(host)
        return row is not None and bool(row["ok"]) and row.get("code") == self._code

    def all_ok(self) -> bool:
        """Whether everything of this run held."""
        return bool(self._mine) and all(self._mine)

    def summary(self) -> str:
        return f"{sum(self._mine)} of {len(self._mine)} scenario runs held"
