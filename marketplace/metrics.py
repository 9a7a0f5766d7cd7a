"""Prometheus metrics of one app: a registry of its own, so that two apps in a process don't clash."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from everlease.supervision import Roster
from everlease.supervision.prometheus import TaskCollector


class Metrics:
    """Counters and gauges; names follow Prometheus' conventions (base units, ``_total``)."""

    def __init__(self, tasks: Roster) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(TaskCollector(tasks))
        self.loop_lag = Histogram(
            "everlease_loop_lag_seconds",
            "How late the event loop is, ten times a second",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
        )
        self.requests = Counter(
            "everlease_http_requests_total", "HTTP requests", ["method", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "everlease_http_request_seconds", "Time to the last byte", ["method"], registry=self.registry
        )
        self.nodes = Gauge("everlease_gateway_nodes", "Nodes with an open socket here", registry=self.registry)
        self.greeting = Gauge("everlease_gateway_greeting", "Sockets that no node has proved", registry=self.registry)
        self.greetings = Counter(
            "everlease_gateway_greetings_total",
            "Connections by what became of them",
            ["outcome"],
            registry=self.registry,
        )
        self.messages = Counter(
            "everlease_gateway_messages_total", "Messages from nodes", ["type"], registry=self.registry
        )
        self.refused = Counter(
            "everlease_gateway_refused_total", "Messages refused under a stale fence", ["kind"], registry=self.registry
        )
        self.beat_seconds = Histogram(
            "everlease_gateway_heartbeat_seconds",
            "Time to record a heartbeat",
            registry=self.registry,
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
        )
        self.commits = Counter(
            "everlease_gateway_commits_total", "Checkpoint commits", ["outcome"], registry=self.registry
        )
        self.logs_dropped = Counter(
            "everlease_gateway_log_chunks_dropped_total", "Log chunks dropped under load", registry=self.registry
        )
        self.followers = Gauge("everlease_sse_followers", "Open event streams", registry=self.registry)

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)
