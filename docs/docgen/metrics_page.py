"""The page of all metrics, made from `anomaly.operations.metrics.METRICS`."""

from anomaly.operations.metrics import METRICS
from docgen import NOTE

_INTRODUCTION = """\
# Metrics

What `anomaly metrics` prints, writes and serves
([Monitoring](../how-to/monitoring.md) says how to collect it). Every value is read from the
database when somebody asks. A metric without a value is missing, never a made-up 0. Times are Unix
times: `time() - anomaly_watermark_timestamp_seconds` is how far scoring is behind."""


def metrics_page() -> str:
    """The page as Markdown: a row per metric."""
    lines = [NOTE, _INTRODUCTION, "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        kind = "counter" if metric.is_counter else "gauge"
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {kind} | {labels} | {metric.meaning} |")
    return "\n".join(lines) + "\n"
