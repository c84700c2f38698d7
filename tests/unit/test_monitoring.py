"""The example alert rules and the dashboard name metrics and label values that exist."""

import json
import re
from pathlib import Path

import pytest
import yaml

from triage.web.metrics import METRICS

OPS = Path(__file__).parents[2] / "ops"
NAMES = {metric.name: metric for metric in METRICS}


def alerts():
    groups = yaml.safe_load((OPS / "prometheus-alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels():
    return json.loads((OPS / "grafana-dashboard.json").read_text(encoding="utf-8"))["panels"]


EXPRESSIONS = [rule["expr"] for rule in alerts()] + [each["expr"] for panel in panels() for each in panel["targets"]]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_what_is_there(expression):
    names = re.findall(r"\btriage_\w+", expression)
    assert names
    assert set(names) <= set(NAMES)
    for name, label, value in re.findall(r'(triage_\w+)\{(\w+)="(\w+)"\}', expression):
        assert value in NAMES[name].labels[label]
    for grouped in re.findall(r"by \(([^)]+)\)", expression):
        assert set(grouped.split(", ")) <= set(NAMES[names[0]].labels)
    assert all(("rate(" in expression or "increase(" in expression) == name.endswith("_total") for name in names)


def test_texts_name_labels_that_the_metric_has():
    said = [(rule["expr"], rule["annotations"]["summary"]) for rule in alerts()]
    said += [(each["expr"], each["legendFormat"]) for panel in panels() for each in panel["targets"]]
    for expression, text in said:
        known = {label for name in re.findall(r"\btriage_\w+", expression) for label in NAMES[name].labels}
        assert set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text)) <= known


def test_panels_do_not_lie_on_each_other():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels()}) == len(places)
