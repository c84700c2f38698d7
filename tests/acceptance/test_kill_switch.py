"""Re-runs are stopped while ``triage run`` runs: by command, by file, by signal, and over a kill -9."""

import signal

from make import body
from processes import emulating, stored, tasks, triage

SCENARIO = """\
functions:
  my-fc-job:
    async: {task: true, retries: 0, on_success: results, on_failure: results}
"""
RULES = """\
version: 1
rules:
  - id: again
    rerun: {after: 0s, max_attempts: 3, give_up_after: 1h}
"""


def switched_off(state):
    return [str(switch) for switch in stored(state, lambda store: store.switches())]


def waits(state, request_id):
    """Whether the re-run of a failure waits at the switch."""
    found = stored(state, lambda store: store.failure(request_id))
    return found is not None and [row["gate"] for row in found.outbox] == ["switch"]


def test_whatever_stops_re_runs_stops_them_until_a_person_lets_them_go_on(tmp_path):
    state, stop_file = tmp_path / "state", tmp_path / "state" / "STOP"
    (tmp_path / "rules.yaml").write_text(RULES)
    with emulating(tmp_path, SCENARIO) as emulation:

        def daemon():
            return emulation.daemon(state, TRIAGE_RULES=str(tmp_path / "rules.yaml"))

        def submitted():
            return tasks(emulation.url, "my-fc-job").total()

        def fails(running, request_id):
            """A failure whose re-run is not submitted, but waits."""
            emulation.fill([body(request_id)])
            running.until(lambda: waits(state, request_id))

        with daemon() as running:
            running.until_logged("running: ")
            triage("switch", "off", "--reason", "incident", "--by", "alice", state=state)
            fails(running, "r-1")
            stop_file.touch()
            running.until(lambda: len(switched_off(state)) == 2)
            triage("switch", "on", "--reason", "over", "--by", "alice", state=state)
            fails(running, "r-2")
            running.process.send_signal(signal.SIGUSR1)
            running.until(lambda: len(switched_off(state)) == 2)
            running.kill()
        with daemon() as running:
            fails(running, "r-3")
            stop_file.unlink()
            running.until(lambda: switched_off(state) == ["all re-runs"])
            fails(running, "r-4")
            assert submitted() == 0
            triage("switch", "on", "--reason", "over", "--by", "alice", state=state)
            running.until(lambda: submitted() == 4)
