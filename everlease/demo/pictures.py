"""The report's pictures as inline SVG, drawn by matplotlib."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from everlease.demo.evidence import Evidence
from everlease.demo.measure import Incident, phases
from everlease.demo.steps import Step

COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2")
PHASE_COLOURS = {"preparing": "#cbd5e1", "restoring": "#f59e0b", "running": "#2563eb"}


def loss_over_time(
    steps: Sequence[Step], found: Evidence, incidents: Sequence[Incident], names: Mapping[str, str], zero: float
) -> str:
    """Loss against time, one colour per tenure; incidents as lines."""
    figure, axes = _figure(3.4)
    for award in found.awards:
        mine = [step for step in steps if step.fence == award["fence"]]
        if mine:
            colour = COLOURS[int(award["fence"] - 1) % len(COLOURS)]
            times, losses = [step.at - zero for step in mine], [step.loss for step in mine]
            axes.plot(times, losses, color=colour, linewidth=1, label=f"{names[award['node']]}, fence {award['fence']}")
    for incident in incidents:
        axes.axvline(incident.at - zero, color="#dc2626", linestyle="--", linewidth=1)
        axes.annotate(incident.cause, (incident.at - zero, axes.get_ylim()[1]), fontsize=8, color="#dc2626")
    axes.set_xlabel("seconds since the demo began")
    axes.set_ylabel("loss")
    axes.legend(fontsize=8, frameon=False)
    return _svg(figure)


def gantt(found: Evidence, incidents: Sequence[Incident], names: Mapping[str, str], zero: float) -> str:
    """Who held the job when, and in which phase; diamonds are committed checkpoints."""
    hosts = sorted(set(names.values()))
    figure, axes = _figure(0.7 + 0.5 * len(hosts))
    until = found.job["ended_at"] or max(row["at"] for row in found.history)
    seen: set[str] = set()
    for award in found.awards:
        row = hosts.index(names[award["node"]])
        for phase, begin, end in phases(award, until):
            label = None if phase in seen else phase
            seen.add(phase)
            axes.barh(row, end - begin, left=begin - zero, height=0.5, color=PHASE_COLOURS[phase], label=label)
    for taken in found.checkpoints:
        where = hosts.index(names[taken["node"]])
        axes.plot(
            taken["committed_at"] - zero, where, marker="D", color="white", markeredgecolor="#0f172a", markersize=4
        )
    for incident in incidents:
        axes.axvline(incident.at - zero, color="#dc2626", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(hosts)), hosts)
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the demo began")
    axes.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return _svg(figure)


def money_flow(change: Mapping[str, int]) -> str:
    """What each party gained or lost, in dollars."""
    moved = {name: units / 1e6 for name, units in change.items() if units}
    figure, axes = _figure(0.8 + 0.35 * max(len(moved), 1))
    colours = ["#059669" if amount > 0 else "#dc2626" for amount in moved.values()]
    bars = axes.barh(list(moved), list(moved.values()), color=colours, height=0.6)
    axes.bar_label(bars, [f"{amount:+.6f}" for amount in moved.values()], fontsize=8, padding=3)
    axes.axvline(0, color="#0f172a", linewidth=0.8)
    axes.margins(x=0.25)
    axes.invert_yaxis()
    axes.set_xlabel("dollars")
    return _svg(figure)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.0, height), layout="constrained")
    axes: Any = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element, without the XML prologue and without a date."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
