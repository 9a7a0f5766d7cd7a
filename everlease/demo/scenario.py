"""The scenario from beginning to end: reference, market run with its incidents, settlement, books, report."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlease.demo import evidence, measure
from everlease.demo.books import Balances, take_balances, transactions
from everlease.demo.incidents import Saboteur
from everlease.demo.market_run import MarketRun
from everlease.demo.measure import Incident
from everlease.demo.params import DemoParams
from everlease.demo.promise import broken
from everlease.demo.reference import run_reference
from everlease.demo.report import write_report
from everlease.demo.steps import merge, redone
from everlease.demo.timeline import Timeline
from everlease.domain.money import from_units
from everlease.stack.local import LocalStack
from everlease.stack.plan import StackPlan

IMAGE_ARCHIVE = ".build/image.tar"


@dataclass(frozen=True, slots=True)
class DemoReport:
    """report.json as a dictionary, and the promises that were not kept."""

    document: dict[str, Any]
    broken: list[str]


def run_demo(root: Path, home: Path, params: DemoParams, *, quiet: bool = False) -> DemoReport:
    """Run it all in ``home`` (emptied first) and leave report.json, report.html and logs/ there.

    Whatever happens, Ctrl-C included, everything that was started is stopped.
    """
    stack = LocalStack(root, home / "stack")
    stack.down()
    if home.exists():
        shutil.rmtree(home)
    home.mkdir(parents=True)
    timeline = Timeline(quiet=quiet)
    try:
        timeline.note("step", "starting a market with its chain, services and hosts")
        plan = StackPlan(nodes=params.nodes, terms=_terms(params))
        stack.up(plan, lambda text: _say(timeline, text))
        report = _Demo(root, home, stack, params, timeline).run()
    finally:
        timeline.note("step", "stopping everything")
        stack.down()
        shutil.rmtree(home / "logs", ignore_errors=True)
        if stack.table.log_of("x").parent.exists():
            shutil.copytree(stack.table.log_of("x").parent, home / "logs")
        shutil.rmtree(home / "stack", ignore_errors=True)
    if not quiet:
        timeline.console.print(f"\nreport: {home / 'report.html'} and {home / 'report.json'}", soft_wrap=True)
    return report


def _terms(params: DemoParams) -> dict[str, Any]:
    return {"answerWindow": params.answer_window_s, "minRuntime": 60, "unbondingPeriod": params.answer_window_s * 4}


def _say(timeline: Timeline, text: str) -> None:
    timeline.note("job", text)


class _Demo:
    """One run. The steps of `run` are in the order of the story."""

    def __init__(self, root: Path, home: Path, stack: LocalStack, params: DemoParams, timeline: Timeline) -> None:
        self.root, self.home, self.stack, self.params, self.timeline = root, home, stack, params, timeline
        self.state = stack.state()
        self.market = MarketRun(stack, self.state, params, timeline)
        self.saboteur = Saboteur(stack, self.state, timeline)
        self.incidents: list[Incident] = []
        self.frozen = True

    def run(self) -> DemoReport:
        try:
            return self._run()
        finally:
            self.market.close()

    def _run(self) -> DemoReport:
        reference = self._reference()
        before = self._balances([])
        self.timeline.note("step", "the market run: one tenant, the same image, the same seed")
        self.market.launch()
        for cause in self.params.causes:
            self.market.work_in_peace(self.params.between_steps)
            self._strike(cause)
        self.market.await_end()
        loss = self.market.fetch_loss(self.home / "outputs")
        exact = loss == reference
        self.timeline.note("good" if exact else "incident", f"loss file bit-identical to the reference: {exact}")
        self._settle()
        after = self._balances([self.market.job_id])
        return self._report(before, after, exact)

    def _reference(self) -> bytes:
        socket = self.saboteur.hosts[-1].state.docker_socket
        image = self.market.load_image(socket, self.root / IMAGE_ARCHIVE)
        self.timeline.note("step", f"reference run of {self.params.steps} steps, no market, no failure")
        loss = run_reference(socket, image, self.params)
        (self.home / "reference-loss.csv").write_bytes(loss)
        self.timeline.note("good", f"reference finished, {len(loss.splitlines())} steps")
        return loss

    def _strike(self, cause: str) -> None:
        """Hurt the host that has the job, and wait until the job works elsewhere."""
        fence, host = self.market.fence(), self.saboteur.host_of(self.market.node())
        at = self.saboteur.strike(cause, host, fence)
        next_fence = self.market.await_next_host(fence)
        self.incidents.append(Incident(cause, at, fence, next_fence))
        if cause == "cut off":
            self.frozen = self.saboteur.bring_back(host, fence)
            self.market.await_refusals(("heartbeat", "checkpoint", "receipt"))

    def _settle(self) -> None:
        """Wait for the disputes' ends, then everyone takes out what is theirs."""
        self.timeline.note("step", "waiting for the chain to settle")
        self.market.await_settlement()
        refunded, withdrawn = self.market.cash_out()
        self.timeline.note("money", f"tenant took back ${from_units(refunded)}")
        for name, amount in withdrawn.items():
            self.timeline.note("money", f"{name} withdrew ${from_units(amount)}")

    def _balances(self, jobs: list[str]) -> Balances:
        return take_balances(self.market.wallet.chain, self.market.wallet.deployment, self.market.parties(), jobs)

    def _report(self, before: Balances, after: Balances, exact: bool) -> DemoReport:
        found = evidence.load(self.market.database, self.market.job_id)
        names = self.saboteur.names
        kept = self.market.steps()
        steps = merge(kept, self.saboteur.host_steps)
        document: dict[str, Any] = {
            "job": {"id": found.job["id"], "state": found.job["state"], "recoveries": found.job["recoveries"]},
            "bit_exact": exact,
            "steps": {"total": self.params.steps, "redone": redone(steps)},
            "recoveries": [measure.recovery(incident, found, steps, names) for incident in self.incidents],
            "checkpoints": measure.checkpoints(found),
            "zombie": {**measure.zombies(found), "frozen": self.frozen},
            "chain": transactions(self.state.rpc_url, self.market.wallet.deployment),
            "auctions": measure.auctions(found),
            "leases": measure.leases(found, names),
            "slashes": measure.slashes(found, names),
            "balances": {
                "before": before.document(),
                "after": after.document(),
                "change": measure.money(before.document(), after.document()),
            },
            "conserved": before.conserved and after.conserved and before.supply == after.supply,
            "timeline": self.timeline.entries,
            "seconds": round(time.time() - self.timeline.began, 1),
        }
        clauses = broken(document, self.incidents)
        document["broken"] = clauses
        (self.home / "report.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
        write_report(self.home / "report.html", document, found, steps, self.incidents, names)
        self.timeline.note("incident" if clauses else "good", "; ".join(clauses) or "every promise was kept")
        return DemoReport(document, clauses)
