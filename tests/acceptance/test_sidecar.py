"""The pod with a sidecar, without Kubernetes: its two containers as the manifest starts them, on one state folder, and the
application's lines as the page has them.
"""

import re
import subprocess
import sys

import yaml
from processes import ROOT, ask, started
from workload import body

FOLDER = ROOT / "docs" / "how-to"
PAGE = (FOLDER / "run-in-a-container.md").read_text(encoding="utf-8")


def sidecars():
    """The arguments of the pod's containers of triage, by name."""
    documents = yaml.safe_load_all((FOLDER / "container" / "sidecar.yaml").read_text())
    pod = next(each for each in documents if each["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    return {each["name"]: each["args"] for each in pod["initContainers"]}


def test_the_application_s_results_are_taken_in_and_told(tmp_path):
    state, secrets, (snippet,) = (
        tmp_path / "state",
        tmp_path / "secrets",
        re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL),
    )
    secrets.mkdir()
    (secrets / "receivers__default__urls").write_text("console:\n")
    assert "127.0.0.1:9335" in snippet
    run, serve = sidecars()["triage"], sidecars()["queue"]
    served = {"TRIAGE_QUEUE_SECRET": "change me, at once"}
    # The tests take a free port, where a pod has its own.
    with (
        started(
            *run, state=state, name="run", TRIAGE_SECRETS_DIR=str(secrets), TRIAGE_QUARANTINE__GROUP_WAIT="0s"
        ) as daemon,
        started(*serve, "--port", "0", state=state, name="queue", PYTHONUNBUFFERED="1", **served) as queue,
    ):
        url = re.search(r"http://\S+:\d+", queue.until(lambda: queue.out if "http://" in queue.out else ""))[0]
        daemon.until_logged("running")
        values = f"secret, envelope = {served['TRIAGE_QUEUE_SECRET']!r}, {body('of-the-application', 1).decode()!r}\n"
        sent = subprocess.run(
            [sys.executable, "-c", values + snippet.replace("http://127.0.0.1:9335", url)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        daemon.until_taken(1)
        assert ask("failures", "list", state=state)[0]["function"] == "of-the-application"
        assert queue.stop() == 0, "the application has ended: first the queue, then the daemon"
        assert daemon.stop() == 0
