"""A lost result message, with real processes: the emulator loses it, the daemon finds the failure and heals it."""

import json
from collections import Counter

from processes import ask, emulating, stored, tasks, totals, triage

from triage.stores import FailureFilter

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


MANY = """
speed: 1000
functions:
  job:
    async: {task: true, retries: 0, on_success: results, on_failure: results}
    behaviour:
      - {do: fail, times: 1}
invoke:
""" + "".join(f"  - {{function: job, payload: 'event {number}'}}\n" for number in range(60))


def test_nothing_is_lost_nor_done_twice_when_messages_get_lost_and_the_daemon_is_killed(tmp_path):
    (tmp_path / "rules.yaml").write_text(RULES)
    state = tmp_path / "state"
    with emulating(tmp_path, MANY, "--fault", "PushResult:lost=0.4", "--seed", 7) as emulation:
        emulation.config.write_text(emulation.config.read_text() + SOURCE)
        settings = {"TRIAGE_RULES": str(tmp_path / "rules.yaml"), "TRIAGE_OUTBOX__CONCURRENCY": "4"}
        for taken in (5, 25, 45):
            with emulation.daemon(state, **settings) as daemon:
                daemon.until(
                    lambda taken=taken: (now := totals(state)) and now.decided >= taken, why=f"were {taken} taken"
                )
                daemon.kill()
        with emulation.daemon(state, **settings) as daemon:
            daemon.until(lambda: dict(totals(state).states) == {"healed": 60}, within=90, why="was all healed")
            assert daemon.stop() == 0
        assert tasks(emulation.url, "job") == Counter({f"event {number}": 2 for number in range(60)})
    sums = ask("status", state=state)
    assert (sums["failures"], sums["conflicts"], sums["adds_up"]) == (60, 0, True)
    triage("selfcheck", state=state)
    assert set(stored(state, sources)) == {"results", "reconcile"}


async def sources(store):
    """Which source each failure came from."""
    rows = await store.failures(FailureFilter(limit=100))
    return [(await store.failure(row.request_id)).envelope["source"] for row in rows]
