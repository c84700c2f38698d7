"""Prometheus' own tool reads the example alert rules, and what a daemon at work tells."""

import re
import shutil
import subprocess
from urllib.request import urlopen

import pytest
import yaml
from machines import run
from make import body
from processes import ROOT, started, triage

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="COULD NOT RUN: promtool is not installed (Debian: prometheus)"
)

ALERTS = ROOT / "ops/prometheus-alerts.yaml"

# An hour of each trouble, a sample a minute.
TROUBLE = {
    "TriageStoreDown": ("triage_store_up", "0x60"),
    "TriageStageWaits": ('triage_stage_waiting_seconds{stage="act"}', "61+60x60"),
    "TriageSourceFails": ('triage_source_errors_total{source="fc"}', "0+1x60"),
    "TriageLags": ('triage_source_lag_seconds{source="fc"}', "400x60"),
    "TriageOldMessage": ('triage_source_oldest_message_seconds{source="fc"}', "301+60x60"),
    "TriageOutboxOverdue": ('triage_outbox_overdue_seconds{kind="notify"}', "301+60x60"),
    "TriageRulesRefused": ("triage_rules_refused", "1x60"),
    "TriageRuleErrors": ('triage_rule_errors_total{rule="retry"}', "0+1x60"),
    "TriageRerunsUnknown": ('triage_reruns_total{result="unknown"}', "0+1x60"),
    "TriageAlertGivenUp": ('triage_deliveries_total{result="dead"}', "0x30 1x30"),
    "TriageQuarantine": ('triage_envelopes_total{result="quarantined"}', "0x30 1x30"),
}
CALM = {series: re.sub(r"\d+", "0", values) for series, values in TROUBLE.values()} | {"triage_store_up": "1x60"}


def test_promtool_accepts_the_alert_rules():
    assert "SUCCESS" in run("promtool", "check", "rules", ALERTS)


@pytest.mark.parametrize("trouble", [True, False], ids=["trouble", "calm"])
def test_each_alert_fires_on_its_trouble_and_none_without(tmp_path, trouble):
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules} == set(TROUBLE)
    cases = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": TROUBLE[rule["alert"]][1] if trouble else CALM[name]}],
            "alert_rule_test": [
                {"eval_time": "45m", "alertname": rule["alert"], "exp_alerts": [fired(rule, name)] if trouble else []}
            ],
        }
        for rule in rules
        for name in [TROUBLE[rule["alert"]][0]]
    ]
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": cases}))
    run("promtool", "test", "rules", tmp_path / "cases.yaml")


def fired(rule, series):
    labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
    summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], rule["annotations"]["summary"])
    return {"exp_labels": {**rule["labels"], **labels}, "exp_annotations": {"summary": summary}}


def test_promtool_accepts_what_the_daemon_tells(tmp_path):
    (tmp_path / "one.json").write_bytes(body("r-1"))
    with started("run", state=tmp_path / "state", TRIAGE_WEB__LISTEN="127.0.0.1:0") as running:
        url = re.search(r"operations endpoint: (http://[\d.:]+)", running.until_logged("operations endpoint"))[1]
        triage("queue", "send", tmp_path / "one.json", state=tmp_path / "state")
        running.until_taken(1)
        told = urlopen(f"{url}/metrics").read()
        assert running.stop() == 0
    assert b"triage_commits_total 1.0\n" in told
    said = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True, check=False)
    assert (said.returncode, said.stderr) == (0, b"")
