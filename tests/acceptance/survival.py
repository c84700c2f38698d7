"""What a daemon has to live through. Each story takes half a minute of waiting for the vendor's promises (a task that is
not known 30 s after its submit was never accepted), so all run side by side, while the other tests run.
"""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from processes import SECRET, Relay, Running, ask, emulating, tasks, totals, triage
from workload import RULES, SCENARIO, Workload, body


def killed_again_and_again(folder: Path) -> None:
    """kill -9 in the middle of a drain, at points that a seed chooses; then the daemon is left alone."""
    load, state, chance = Workload(600), folder / "state", random.Random(4711)
    (folder / "rules.yaml").write_text(RULES)
    points = sorted(chance.sample(range(50, load.size + load.reruns.total() - 100), 4))
    with emulating(folder, SCENARIO, bodies=load.bodies) as emulation:
        for point in points:
            with emulation.daemon(state, TRIAGE_RULES=str(folder / "rules.yaml")) as running:
                running.until_taken(point)
                running.kill()
        with emulation.daemon(state, TRIAGE_RULES=str(folder / "rules.yaml")) as running:
            running.until(lambda: load.is_done(state), within=100, why="was all done")
            repeated = load.check(emulation, running, state, disturbed=True)
            # Only what was being delivered when the process died may be told twice.
            assert repeated <= len(points) * 6
            assert running.stop() == 0


def killed_between_submit_and_settle(folder: Path) -> None:
    """FC has accepted re-runs, and the daemon dies before it hears of it."""
    state, dead = folder / "state", list[Running]()
    scenario = f"{SCENARIO}  untracked: {{}}  # FC keeps no tasks for it, so it cannot refuse a repetition\n"
    rules = RULES.replace("function: again", "function: [again, untracked]")
    (folder / "rules.yaml").write_text(rules)
    bodies = [body(name, number) for name in ("again", "untracked") for number in range(3)]

    def answer(data: bytes) -> bool:
        if b" 202 " in data.partition(b"\r\n")[0] and dead:
            dead[0].process.kill()
        return not (dead and b" 202 " in data.partition(b"\r\n")[0])

    with emulating(folder, scenario, bodies=bodies) as emulation, Relay(emulation.url, answer) as relay:
        rules_and_relay = {"TRIAGE_RULES": str(folder / "rules.yaml"), "TRIAGE_FC__ENDPOINT": relay.url}
        with emulation.daemon(state, **rules_and_relay) as running:
            dead.append(running)
            assert running.process.wait(30) == -signal.SIGKILL
        dead.clear()
        with emulation.daemon(state, **rules_and_relay) as running:
            done = {"healed": 3, "alerted": 3}
            running.until(lambda: {k: v for k, v in totals(state).states.items() if v} == done, within=100)
            assert running.stop() == 0
        assert tasks(emulation.url, "again") == {f'{{"number":{number}}}': 1 for number in range(3)}
    submits = re.findall(rb"POST /2023-03-30/functions/untracked/invocations", relay.requests)
    assert 1 <= len(submits) <= 3  # one that never left before the kill is not sent later either: nobody can tell
    assert running.out.count("it cannot be found out whether the re-run was taken; it is held for you") >= 1
    healed, held = (f"1-{name}-000000" for name in ("again", "untracked"))
    # The provider is asked for the request, or the result is here before the question is: either way it is known.
    assert re.search(
        r"^ +1 .* 1-[0-9a-f]{8}-[0-9a-f]{8}-", triage("failures", "show", healed, state=state), re.MULTILINE
    )
    story = triage("failures", "show", held, state=state)
    assert "no task tracking (asyncTask)" in story
    assert re.search(r"default +sent", story)


def served_badly(folder: Path) -> None:
    """The network and both services misbehave, by a seed."""
    load, state = Workload(200), folder / "state"
    (folder / "rules.yaml").write_text(RULES)
    faults = {
        "lost_answer": 0.06,
        "server_error": 0.05,
        "throttled": 0.05,
        "delay": 0.05,
        "duplicate": 0.1,
        "ListAsyncTasks:lost_answer": 0,
        "ListAsyncTasks:server_error": 0,
        "ListAsyncTasks:throttled": 0,
        "InvokeFunction:lost_answer": 0.1,
        "InvokeFunction:server_error": 0.05,
        "InvokeFunction:throttled": 0.05,
    }
    options = [option for name, rate in faults.items() for option in ("--fault", f"{name}={rate}")]
    with (
        emulating(folder, SCENARIO, *options, "--seed", 7, bodies=load.bodies) as emulation,
        emulation.daemon(state, TRIAGE_RULES=str(folder / "rules.yaml")) as running,
    ):
        running.until(lambda: load.is_done(state), within=180, why="was all done")
        assert load.check(emulation, running, state, disturbed=True) == 0
        assert running.stop() == 0
    assert ask("status", state=state)["duplicates"] > load.garbage  # the faults were there


def refused_for_its_key(folder: Path) -> None:
    """A wrong secret is told, tried slowly, and mended at the other end without a restart of the daemon."""
    state = folder / "state"
    with ExitStack() as stack:
        wrong = emulating(folder, SCENARIO, "--access-key-secret", "another-one", bodies=[body("noise", 1)])
        emulation = stack.enter_context(wrong)
        emulation.config.write_text(emulation.config.read_text().replace("... as given ...", SECRET))
        running = stack.enter_context(emulation.daemon(state))
        refused = running.until_logged("SignatureDoesNotMatch")
        assert refused.count("ERROR") <= 4, "one line for each receiver, then a pause"
        assert SECRET not in refused
        assert totals(state).received == 0
        assert emulation.queue() == (1, 0)
        assert emulation.running.stop() == 0
        stack.enter_context(emulating(folder, SCENARIO, port=int(emulation.url.rpartition(":")[2])))
        running.until(lambda: totals(state).received == 1, within=60)
        assert running.stop() == 0
    assert ask("status", state=state)["states"] == {"alerting": 1}


STORIES: dict[str, Callable[[Path], None]] = {
    story.__name__: story
    for story in (killed_again_and_again, killed_between_submit_and_settle, served_badly, refused_for_its_key)
}
