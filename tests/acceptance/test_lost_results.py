"""A lost result message, with real processes: the emulator loses it, the daemon finds the failure and heals it."""

import json

from processes import ask, emulating, totals, triage

SCENARIO = """
speed: 1000
functions:
  job:
    async: {task: true, retries: 0, on_success: results, on_failure: results}
    behaviour:
      - {do: fail, payload: '*small*', times: 1, lost: true}
      - {do: fail, payload: '*large*', times: 1}
invoke:
  - {function: job, payload: small}
  - {function: job, payload: 'LARGE'}
"""
RULES = """\
version: 1
rules:
  - id: again
    rerun: {after: 0s, max_attempts: 2, give_up_after: 1h, expect_within: 2s}
"""
SOURCE = """
[[sources]]
type = "reconcile"
functions = ["job"]
interval = "500ms"
grace = "0s"
"""


def test_lost_failures_are_found_run_again_and_healed(tmp_path):
    (tmp_path / "rules.yaml").write_text(RULES)
    state = tmp_path / "state"
    # A result holds the event, so that of a large one does not fit into a message: neither the failure nor the success
    # is told. The latter is what the deadline of a re-run is for.
    scenario = SCENARIO.replace("LARGE", "large" + "x" * 70_000)
    with emulating(tmp_path, scenario) as emulation:
        emulation.config.write_text(emulation.config.read_text() + SOURCE)
        with emulation.daemon(state, TRIAGE_RULES=str(tmp_path / "rules.yaml")) as daemon:
            daemon.until(
                lambda: (sums := totals(state)) is not None and dict(sums.states) == {"healed": 2}, why="was all healed"
            )
            assert daemon.stop() == 0
    triage("selfcheck", state=state)
    sums = ask("status", state=state)
    assert (sums["conflicts"], sums["duplicates"], sums["adds_up"]) == (0, 0, True)
    for row in ask("failures", "list", state=state):
        shown = triage("failures", "show", row["request_id"], state=state)
        assert "reconstructed  by reconciliation, from what FC says of the task" in shown
        assert "source reconcile" in shown
        details = ask("failures", "show", row["request_id"], state=state)
        assert json.loads(details["envelope"]["body"])["reconstructed"]["destinationStatus"] == "Failed"
