"""report.html: one file that needs nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from everlease.demo import pictures
from everlease.demo.evidence import Evidence
from everlease.demo.measure import Incident
from everlease.demo.steps import Step
from everlease.domain.money import from_units


def write_report(
    path: Path,
    document: dict[str, Any],
    found: Evidence,
    steps: Sequence[Step],
    incidents: Sequence[Incident],
    names: Mapping[str, str],
) -> None:
    """Render the document and its pictures to ``path``."""
    zero = document["timeline"][0]["at"]
    environment = Environment(
        loader=PackageLoader("everlease.demo"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["dollars"] = lambda units: f"{int(units) / 1e6:+.6f}"
    environment.filters["units"] = lambda units: f"${from_units(int(units))}"
    environment.filters["megabytes"] = lambda count: f"{count / 1e6:.1f} MB"
    environment.filters["seconds"] = lambda value: "–" if value is None else f"{value:.2f} s"
    text = environment.get_template("report.html").render(
        report=document,
        zero=zero,
        loss=Markup(pictures.loss_over_time(steps, found, incidents, names, zero)),  # noqa: S704 - our own SVG
        gantt=Markup(pictures.gantt(found, incidents, names, zero)),  # noqa: S704
        money=Markup(pictures.money_flow(document["balances"]["change"])),  # noqa: S704
    )
    path.write_text(text, encoding="utf-8")
