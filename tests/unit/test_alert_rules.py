"""The alert rules are tried by Prometheus's own tool, and each leads to what to do about it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from anomaly.operations.metrics import METRICS

PROJECT = Path(__file__).parents[2]
MONITORING = PROJECT / "docker" / "monitoring"
RULES = yaml.safe_load((MONITORING / "prometheus-rules.yml").read_text())["groups"][0]["rules"]
TRIED = (MONITORING / "prometheus-rules.test.yml").read_text()
NAMES = {metric.name for metric in METRICS}

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="needs promtool (Debian's package prometheus)"
)


def promtool(*arguments):
    return subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=120
    )


@needs_promtool
def test_each_rule_fires_when_it_should_and_not_before():
    said = promtool("test", "rules", "prometheus-rules.test.yml")

    assert said.returncode == 0, said.stdout + said.stderr
    assert "SUCCESS" in said.stdout


@needs_promtool
def test_the_configuration_is_one_that_prometheus_takes():
    said = promtool("check", "config", "prometheus.yml")

    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_tried_has_a_runbook_and_asks_for_metrics_that_there_are(rule):
    assert f'- name: "{rule["alert"]}: ' in TRIED
    assert rule["labels"]["severity"] in ("critical", "warning")
    page, _, heading = rule["annotations"]["runbook_url"].partition("#")
    titles = re.findall(r"^#+ (.+)$", (PROJECT / page).read_text(), re.MULTILINE)
    assert heading == rule["alert"].lower()
    assert rule["alert"] in titles
    assert set(re.findall(r"anomaly_\w+", rule["expr"])) <= NAMES


def test_the_dashboard_asks_for_metrics_that_there_are_and_shows_what_was_promised():
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"anomaly_\w+", target["expr"])
    }

    assert asked <= NAMES
    promised = ("readings_scored_total", "watermark_timestamp_seconds", "alerts_per_week",
                "newest_reading_timestamp_seconds", "abnormal_verdicts_ratio",
                "alert_budget_per_week", "verdicts_repaired_total", "models_refused",
                "model_trained_to_timestamp_seconds", "backfill_progress_ratio")  # fmt: skip
    assert {f"anomaly_{name}" for name in promised} <= asked
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
