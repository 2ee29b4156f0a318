"""Metrics by what they read: importing the room enters all of them in `METRICS`."""

from pellucid.evaluation.metrics import across, alone, beside_oracle, located, masked, of_parts, ranked, redrawn, timed
from pellucid.evaluation.metrics.registry import CATEGORIES, METRICS, Metric, MetricFacts, as_metrics, metric

METRICS.extend("pellucid.metrics")
METRICS.order(lambda m: CATEGORIES.index(m.category))

__all__ = [
    "CATEGORIES",
    "METRICS",
    "Metric",
    "MetricFacts",
    "across",
    "alone",
    "as_metrics",
    "beside_oracle",
    "located",
    "masked",
    "metric",
    "of_parts",
    "ranked",
    "redrawn",
    "timed",
]
