"""A plan of two hundred re-runs, carried out by a real daemon that is killed in the middle, again and again."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from processes import ask, emulating, tasks, totals, triage
from workload import body

RULES = """
version: 1
rules:
  - id: tell
    alert: {to: default, group_by: [function], group_wait: 1s, group_interval: 1s}
"""

SCENARIO = """
version: 1
speed: 1000
queues: [results]
functions:
  mended:                       # whatever failed before, a re-run succeeds
    async: {task: true, retries: 0, on_success: results, on_failure: results}
  broken:                       # the fix was none
    async: {task: true, retries: 0, on_success: results, on_failure: results}
    behaviour: [{do: fail, type: ParseError, message: unexpected token}]
"""

SIZE = 200


def test_a_plan_runs_each_failure_once_through_kills_and_a_false_fix_stops_at_once(tmp_path: Path):
    state = tmp_path / "state"
    rules = {"TRIAGE_RULES": str(tmp_path / "rules.yaml")}
    (tmp_path / "rules.yaml").write_text(RULES)
    bodies = [body(function, number) for function in ("mended", "broken") for number in range(SIZE)]
    with emulating(tmp_path, SCENARIO, bodies=bodies) as emulation:
        with emulation.daemon(state, **rules) as running:
            running.until(lambda: (now := totals(state)) and now.states.get("alerted", 0) == 2 * SIZE)
            mended, broken = (plan_of(function, state) for function in ("mended", "broken"))
            steer("apply", mended, "--steps", "1,2,5,20,50", state=state)
            # Killed whenever the plan has got on, in whatever step that is.
            running.until(lambda: done_of(mended, state) >= 3)
            running.kill()
        for point in (8, 30):
            with emulation.daemon(state, **rules) as running:
                running.until(lambda point=point: done_of(mended, state) >= point)
                running.kill()
        with emulation.daemon(state, **rules) as running:
            running.until(lambda: shown(mended, state)["state"] == "done", within=100, why="was the plan done")
            steer("apply", broken, state=state)
            running.until(lambda: shown(broken, state)["state"] == "stopped", why="had the plan stopped")
            running.until(lambda: "plan of re-runs stopped: 1 of 1 re-runs" in running.out)
            assert f"Look: triage plan show {broken}" in running.out
            assert running.stop() == 0
        assert tasks(emulation.url, "mended") == Counter(f'{{"number":{number}}}' for number in range(SIZE))
        assert sum(tasks(emulation.url, "broken").values()) == 1
    counts = shown(mended, state)["counts"]
    assert (counts["succeeded"], counts["failed"], counts["skipped"], counts["waiting"]) == (SIZE, 0, 0, 0)
    counts = shown(broken, state)["counts"]
    assert (counts["failed"], counts["waiting"]) == (1, SIZE - 1)
    items = ask("plan", "show", mended, "--items", state=state)["items"]
    assert [item["step"] for item in items] == steps(SIZE)
    refused = triage("apply", broken, "--by", "ann", "--reason", "once more", state=state, code=1)
    assert refused == ""
    sums = ask("status", state=state)
    assert sums["adds_up"]
    assert sums["plans"] == {"done": 1, "stopped": 1}
    triage("selfcheck", state=state)


def steps(size: int) -> list[int]:
    """The step of each item, by the usual sizes."""
    taken, sizes = [], [1, 2, 5, 20]
    while len(taken) < size:
        step = (taken[-1] if taken else 0) + 1
        taken += [step] * (sizes[step - 1] if step <= len(sizes) else 50)
    return taken[:size]


def plan_of(function: str, state: Path) -> str:
    """Plan all failures of a function by what they have in common; the short hash."""
    made = ask("plan", "--filter", f'fn == "{function}"', "--by", "ann", "--reason", "mended", state=state)
    assert made["size"] == SIZE
    assert made["state"] == "planned"
    assert re.fullmatch("[0-9a-f]{64}", made["hash"])
    return made["hash"][:12]


def steer(command: str, plan: str, *options: str, state: Path) -> None:
    told = triage(command, plan, "--by", "ann", "--reason", "the parser is mended", *options, state=state)
    assert f"plan {plan} is running" in told


def shown(plan: str, state: Path) -> dict[str, object]:
    return json.loads(triage("plan", "show", plan, "--json", state=state))


def done_of(plan: str, state: Path) -> int:
    return shown(plan, state)["counts"]["succeeded"]
