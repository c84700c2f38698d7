"""What a daemon has to live through. Each story takes half a minute of waiting for the vendor's promises (a task that is
not known 30 s after its submit was never accepted), so all run side by side, while the other tests run.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from processes import SECRET, Relay, Running, alerts, ask, emulated_here, emulating, tasks, totals, triage
from workload import RULES, SCENARIO, Workload, body

from triage.emulator.platform import Platform
from triage.stores.selfcheck import view
from triage.stores.sqlite import SqliteStore

KILLS = int(os.environ.get("TRIAGE_ACCEPTANCE_KILLS", "6"))
"""How often the daemon is killed at a time that a seed chooses; two seconds each."""
SEED = int(os.environ.get("TRIAGE_ACCEPTANCE_SEED", "4711"))


def killed_at_any_time(folder: Path) -> None:
    """kill -9 again and again, while it starts and while it works; then the daemon is left alone.

    Every life finds new messages. After every death all laws hold of the store; every attempt that was submitted has been
    accepted once, and one that has not been accepted has a row that is still to come.
    """
    chance, state, out = random.Random(SEED), folder / "state", Counter[str]()
    load = Workload(80 * (KILLS + 1))
    (folder / "rules.yaml").write_text(RULES.replace("function: again", "function: [again, untracked]"))
    with emulated_here(folder, SCENARIO + UNTRACKED) as here:
        asyncio.run(_make_store(state / "triage.db"))
        for life in range(KILLS + 1):
            here.put([*load.bodies[80 * life : 80 * (life + 1)], *(body("untracked", 8 * life + n) for n in range(8))])
            with here.daemon(state, TRIAGE_RULES=str(folder / "rules.yaml")) as running:
                if life < KILLS:
                    with suppress(subprocess.TimeoutExpired):
                        raise AssertionError(f"ended with {running.process.wait(chance.uniform(0.1, 3))}")
                    running.kill()
                else:
                    running.until(lambda: _is_over(state, load), within=120 + KILLS, why="was all over")
                    running.until(lambda: here.waiting() == 0, why="was the queue empty")
                    assert running.stop() == 0
            out["holds"] += triage("selfcheck", state=state).startswith("holds")
            out |= _accepted_once(here.platform, state)
    assert here.events("again") == load.reruns
    told, repeated = alerts(running.out)
    amiss = load.told - told, told - load.told
    assert {what: told[what] for what in load.told} == load.told, f"not told, and told too often: {amiss}"
    assert repeated <= KILLS * 8, "only what was being delivered when the process died may be told twice"
    untracked = _states(state, "root LIKE '1-untracked-%'")
    assert set(untracked) <= {"healed", "alerted", "suppressed"}, "what was lost is told, or counted by what was told"
    print(f"\n{KILLS} kills: {dict(out)}, untracked: {untracked}, repeated notifications: {repeated}")


UNTRACKED = """
  untracked:                    # FC keeps no tasks for it, so it cannot refuse a repetition
    async: {task: false, retries: 0, on_success: results, on_failure: results}
"""


async def _make_store(path: Path) -> None:
    await (await SqliteStore.open(path)).close()


def _states(state: Path, where: str) -> dict[str, int]:
    with view(state / "triage.db") as connection:
        return dict(connection.execute(f"SELECT state, count(*) FROM lineages WHERE {where} GROUP BY state"))


def _is_over(state: Path, load: Workload) -> bool:
    known = _states(state, "root LIKE '1-again-%' OR root LIKE '1-broken-%'")
    return known == {"healed": load.reruns.total(), "alerted": load.told.total()} and not (
        _states(state, "state NOT IN ('healed', 'alerted', 'suppressed', 'ignored')")
    )


def _accepted_once(platform: Platform, state: Path) -> Counter[str]:
    """Compare what the provider has accepted with what the store says of it; how many re-runs there are by now."""
    submits = Counter((submit.function, submit.task_id) for submit in platform.submits)
    executions = Counter((execution.function, execution.request_id) for execution in platform.executions)
    assert max(submits.values(), default=0) <= 1, submits.most_common(3)
    assert max(executions.values(), default=0) <= 1, executions.most_common(3)
    with view(state / "triage.db") as connection:
        rows = connection.execute(
            "SELECT key, state, json_extract(payload, '$.function.name') FROM outbox WHERE kind = 'rerun'"
        ).fetchall()
    for key, row, function in rows:
        accepted = submits[function, key]
        assert accepted or row in ("pending", "unknown") or (row, function) == ("dead", "untracked"), (key, row)
    assert not set(submits) - {(function, key) for key, _, function in rows}, "accepted, and no row"
    return Counter({"re-runs": len(rows), "accepted": submits.total()})


def killed_between_submit_and_settle(folder: Path) -> None:
    """FC has accepted re-runs, and the daemon dies before it hears of it."""
    state, dead = folder / "state", list[Running]()
    scenario = f"{SCENARIO}  untracked: {{}}  # neither keeps tasks nor tells results: nobody can find out\n"
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
    for story in (killed_at_any_time, killed_between_submit_and_settle, served_badly, refused_for_its_key)
}
