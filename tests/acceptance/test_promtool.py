"""Prometheus' own tool reads the example alert rules, and what a daemon at work tells."""

import re
import subprocess
from urllib.request import urlopen

from machines import needs, run
from make import body
from processes import ROOT, started, triage

pytestmark = needs("promtool")


def test_promtool_accepts_the_alert_rules():
    assert "SUCCESS" in run("promtool", "check", "rules", ROOT / "ops/prometheus-alerts.yaml")


def test_promtool_accepts_what_the_daemon_tells(tmp_path):
    (tmp_path / "one.json").write_bytes(body("r-1"))
    with started("run", state=tmp_path / "state", TRIAGE_WEB__LISTEN="127.0.0.1:0") as running:
        url = re.search(r"operations endpoint: (http://[\d.:]+)", running.until_logged("operations endpoint"))[1]
        triage("queue", "send", tmp_path / "one.json", state=tmp_path / "state")
        running.until_taken(1)
        told = urlopen(f"{url}/metrics").read()
        assert running.stop() == 0
    assert b"triage_commits_total 1\n" in told
    said = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True, check=False)
    assert (said.returncode, said.stderr) == (0, b"")
