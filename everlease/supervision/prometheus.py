"""The roster as Prometheus metrics. Apart from the rest: hosts have no prometheus_client."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from everlease.supervision.roster import Roster


class TaskCollector(Collector):
    """Read anew at each scrape; ``everlease_task_up`` is 0 for work that waits to be started again or has stalled."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def collect(self) -> Iterable[Metric]:
        """The metric families, one sample per task."""
        up = GaugeMetricFamily("everlease_task_up", "1 while background work runs", labels=["task"])
        restarts = CounterMetricFamily("everlease_task_restarts", "Restarts of background work", labels=["task"])
        silent = GaugeMetricFamily(
            "everlease_task_silent_seconds", "Since background work last said that it goes on", labels=["task"]
        )
        for it in self._roster.statuses():
            up.add_metric([it.name], float(it.well))
            restarts.add_metric([it.name], it.restarts)
            silent.add_metric([it.name], it.silent_s)
        return [up, restarts, silent]
