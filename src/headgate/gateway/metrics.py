"""What a gateway counts, for Prometheus. Labels are pipelines and outcomes; never keys, users or texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from headgate.serving.dispatch import Dispatcher

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The counters and histograms of one gateway process, and the gauges read from its dispatcher when scraped."""

    def __init__(self, dispatcher: Dispatcher, folder: str | None = None) -> None:
        """`folder` is where several gateway processes share their counts (prometheus_client's multiprocess mode)."""
        self._folder = folder
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "headgate_requests",
            "Requests by outcome.",
            ["pipeline", "kind", "status"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "headgate_tokens",
            "Tokens of settled requests.",
            ["pipeline", "direction"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "headgate_request_seconds",
            "Seconds from accepted to settled.",
            ["pipeline"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first = Histogram(
            "headgate_first_token_seconds",
            "Seconds from accepted to the first token.",
            ["pipeline"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue = Histogram(
            "headgate_queue_seconds",
            "Seconds that requests waited for a replica.",
            ["pipeline"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.continued = Counter(
            "headgate_continued",
            "Answers continued on another replica after theirs broke.",
            ["pipeline"],
            registry=self.registry,
        )
        self._outcomes: dict[tuple[str, str, int], Counter] = {}
        self._pipelines: dict[str, _OfPipeline] = {}
        self._gauges = _Gauges(dispatcher)
        if folder is None:
            self.registry.register(self._gauges)

    def count(self, pipeline: str, kind: str, status: int) -> None:
        """One request ended with that HTTP status."""
        counter = self._outcomes.get((pipeline, kind, status))
        if counter is None:
            counter = self._outcomes[pipeline, kind, status] = self._requests.labels(pipeline, kind, str(status))
        counter.inc()

    def observe(
        self,
        pipeline: str,
        *,
        total_s: float,
        first_s: float | None,
        queue_s: float,
        prompt_tokens: int,
        output_tokens: int,
        continued: bool,
    ) -> None:
        """One request was carried."""
        of = self._pipelines.get(pipeline)
        if of is None:
            of = self._pipelines[pipeline] = _OfPipeline(self, pipeline)
        of.seconds.observe(total_s)
        of.queue.observe(queue_s)
        if first_s is not None:
            of.first.observe(first_s)
        of.prompt_tokens.inc(prompt_tokens)
        of.output_tokens.inc(output_tokens)
        if continued:
            of.continued.inc()

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        if self._folder is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together, path=self._folder)
        together.register(self._gauges)
        return generate_latest(together)


class _OfPipeline:
    """One pipeline's own counters: finding them by label costs more than counting."""

    def __init__(self, metrics: Metrics, pipeline: str) -> None:
        self.seconds = metrics.seconds.labels(pipeline)
        self.first = metrics.first.labels(pipeline)
        self.queue = metrics.queue.labels(pipeline)
        self.continued = metrics.continued.labels(pipeline)
        self.prompt_tokens = metrics.tokens.labels(pipeline, "prompt")
        self.output_tokens = metrics.tokens.labels(pipeline, "output")


class _Gauges(Collector):
    """What is true now, from the dispatcher and its routing table."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def collect(self) -> Iterator[GaugeMetricFamily]:
        lanes = list(self._dispatcher.lanes)
        yield _family(
            "headgate_queued",
            "Requests waiting for a replica.",
            ((x.route.name, len(x.waiting)) for x in lanes),
        )
        yield _family("headgate_in_flight", "Requests being answered.", ((x.route.name, x.in_flight) for x in lanes))
        yield _family(
            "headgate_replicas_ready",
            "Replicas that take requests.",
            ((x.route.name, sum(seat.ready for seat in x.seats)) for x in lanes),
        )


def _family(name: str, text: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["pipeline"])
    for pipeline, value in values:
        family.add_metric([pipeline], value)
    return family
