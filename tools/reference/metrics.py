"""docs/reference/metrics.md: every metric that /metrics tells."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.core.clock import SystemClock
from headgate.gateway.metrics import Metrics
from headgate.gateway.node_metrics import NodeFamilies
from headgate.serving.dispatch import Dispatcher
from tools.reference.markdown import NOTE, code, sentence, table

_INTRO = """# Metrics

`GET /metrics` answers in Prometheus' text format. It takes a key of the role `scrape` (or `admin`), which may do
nothing else: `headgate key create --role scrape`. Labels are pipelines, pools, kinds and outcomes; never keys, users
or texts. Counters and histograms are those of all gateway processes together. What the node decides (the gap to the
bound, prices, replicas wanted, marginal values, moves) is asked of it for each scrape, and left out when it is away or
takes longer than a second: `absent(headgate_decisions_total)` tells.

```yaml
# prometheus.yml
scrape_configs:
  - job_name: headgate
    authorization: {credentials_file: /etc/prometheus/headgate.key}
    static_configs: [{targets: ["127.0.0.1:8080"]}]
```
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFacts:
    """One metric as a scraper sees it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def list_metrics() -> list[MetricFacts]:
    """Every metric of a gateway and of the node behind it, by name."""
    metrics = Metrics(Dispatcher(SystemClock()))
    found: dict[str, MetricFacts] = {}
    for collector in (*metrics.registry._collector_to_names, NodeFamilies({})):
        for family in collector.collect():
            labels = tuple(getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ()))
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = MetricFacts(name=name, kind=family.type, labels=labels, text=family.documentation)
    return [found[name] for name in sorted(found)]


def build_metrics_page() -> str:
    """The page."""
    rows = [
        (code(one.name), one.kind, ", ".join(code(label) for label in one.labels), sentence(one.text))
        for one in list_metrics()
    ]
    return "\n".join((NOTE, _INTRO, table(("metric", "type", "labels", "what it counts"), rows)))
