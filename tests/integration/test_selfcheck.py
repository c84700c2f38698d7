"""``triage selfcheck``: a store that triage has written keeps all laws, and whatever is spoilt in it breaks the right one."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import make
import pytest
from click.testing import CliRunner
from past import Past, rule_set

from triage.cli import cli
from triage.errors import OutcomeUnknown, StoreUnavailable
from triage.reruns.lineage import task_id
from triage.silence import Silence
from triage.states import ACCOUNTED, ACCOUNTS, State
from triage.stores.laws import LAWS
from triage.stores.selfcheck import SHOWN, check, view

RULES = rule_set(
    """
  - id: again
    match: {function: [heals, runs, lost, waits]}
    rerun: {after: 2m, backoff: {jitter: 0}, max_attempts: 2, give_up_after: 6h}
    alert: {group_wait: 5s}
  - {id: known, match: {function: known}, ignore: it is known to fail}
  - {id: ask, match: {function: asks}, hold: {reason: was it paid?, for: 1d}}
  - {id: tell, alert: {group_by: [function], group_wait: 5s}}
"""
)


def result(function: str, request_id: str = "", **fields: object) -> bytes:
    arn = f"acs:fc:cn-hangzhou:1034:functions/{function}"
    return make.body(request_id or f"1-{function}", arn=arn, payload=json.dumps(function), **fields)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a failure in every state, told, untold and silenced alerts, a duplicate, a conflict, and garbage."""
    path = tmp_path_factory.mktemp("healthy") / "triage.db"

    async def fill() -> None:
        past = await Past.open(path, RULES)
        for function, hours in (("hushed", 0.1), ("quiet", 9)):
            ends = make.NOW + timedelta(hours=hours)
            hush = Silence(0, {"function": function}, "ana", "a deploy", make.NOW, ends)
            await past.store.add_silence(hush, warn_before=timedelta(0))
        await past.receive(result("heals"), result("told"), result("known"), result("asks"), b"garbage")
        await past.receive(result("known"), result("known", condition="Other"))
        await past.receive(result("hushed"), result("quiet"))
        await past.pass_time(timedelta(minutes=10))
        past.functions.delay = timedelta(hours=1)
        await past.receive(result("runs"), result("told", "1-again"))
        await past.pass_time(timedelta(minutes=2, seconds=1))
        past.functions.failures.append(OutcomeUnknown("no_answer"))
        await past.receive(result("lost"))
        await past.pass_time(timedelta(minutes=2, seconds=1))
        await past.receive(result("waits"), result("untold"))
        await past.close()

    asyncio.run(fill())
    return path


def broken(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The laws that do not hold, with the rows that break them."""
    with view(path) as connection:
        return {
            verdict.law.id: [(breach.what, breach.problem) for breach in verdict.breaches]
            for verdict in check(connection, now=make.NOW + timedelta(hours=1))
            if verdict.broken
        }


def test_the_store_has_a_failure_in_every_state(healthy: Path):
    with closing(sqlite3.connect(healthy)) as connection:
        states = {state for (state,) in connection.execute("SELECT state FROM lineages")}
    assert states == set(State) - {State.NEW}


def test_a_store_that_triage_has_written_keeps_all_laws(healthy: Path):
    assert broken(healthy) == {}


def test_every_state_is_counted_under_one_account():
    assert set(ACCOUNTED) == set(State) - {State.NEW}
    assert set(ACCOUNTED.values()) <= set(ACCOUNTS)


HEALS, RUNS, LOST = (task_id(f"1-{name}", 1) for name in ("heals", "runs", "lost"))

PLAN = """INSERT INTO plans (hash, state, waiting, ordered, excluded, succeeded, failed, skipped, created_at, by, reason,
    selection, qualifier, threshold, sizes, step, rung, receivers, note, functions)"""
PLANNED = [
    f"('abcdef0123456789', '{state}', {waiting}, 0, 0, 0, 0, 0, '', '', '', '{{}}', '', 80, '[1]', 1, 0, '[]', '', '{{}}')"
    for state, waiting in (("planned", 1), ("running", 0))
]
SPOILT = [
    ("received", "a message counted twice", "UPDATE counters SET value = value + 1 WHERE name = 'received'", "counters"),
    ("stored", "an envelope that was counted and is gone", "UPDATE counters SET value = value + 1 WHERE name IN ('received', 'decided')", "decided"),
    ("stored", "a quarantined message thrown away", "DELETE FROM quarantine", "quarantined"),
    ("stored", "a conflict that was never counted", "INSERT INTO conflicts SELECT NULL, request_id, 'x', received_at, source, message_id, body FROM conflicts", "conflicts"),
    ("decided", "no decision", "DELETE FROM decisions WHERE request_id = '1-known'", "1-known"),
    ("decided", "a decision about something else", "UPDATE decisions SET request_id = '1-else' WHERE request_id = '1-known'", "1-known"),
    ("failures", "a failure in no state", "UPDATE counters SET value = value + 1 WHERE name = 'failures'", "counters"),
    ("members", "a failure without a lineage", "UPDATE envelopes SET root = NULL WHERE request_id = '1-known'", "1-known"),
    ("members", "a failure moved to another lineage", "UPDATE envelopes SET root = '1-told' WHERE request_id = '1-known'", "1-told"),
    ("members", "the event to run again is gone", "UPDATE envelopes SET request_id = '1-else' WHERE request_id = '1-waits'", "1-waits"),
    ("groups", "a group that counts too little", "UPDATE groups SET count = count - 1", None),
    ("drills", "a drill that nobody ordered", "UPDATE lineages SET root = 'triage-drill-x' WHERE root = '1-known'", "triage-drill-x"),
    ("drills", "a failure that hides as a drill", "UPDATE envelopes SET outcome = 'drill' WHERE request_id = '1-known'", "1-known"),
    ("waiting", "a re-run that was never planned", f"DELETE FROM outbox WHERE key = '{LOST}'", "1-lost"),
    ("waiting", "a result without a deadline", "UPDATE outbox SET state = 'cancelled', settled_at = due_at WHERE kind = 'expect' AND root = '1-runs'", "1-runs"),
    ("waiting", "a hold without an end", "DELETE FROM outbox WHERE kind = 'hold'", "1-asks"),
    ("waiting", "a deadline of another attempt", "UPDATE lineages SET attempt = 2 WHERE root = '1-runs'", "1-runs"),
    ("over", "a re-run of what is healed", f"UPDATE outbox SET state = 'pending', settled_at = NULL WHERE key = '{HEALS}'", HEALS),
    ("over", "a hold of what is ignored", "UPDATE lineages SET state = 'ignored' WHERE state = 'held'", "hold:1-asks"),
    ("gates", "a budget that nobody looks at", f"UPDATE outbox SET gate = 'budget', function = 'lost' WHERE key = '{LOST}'", LOST),
    ("gates", "a switch that is not off", f"UPDATE outbox SET gate = 'switch' WHERE key = '{LOST}'", LOST),
    ("effects", "an alert that was decided and not raised", "DELETE FROM alerts WHERE request_id = '1-untold'", "1-untold"),
    ("effects", "a hold that was decided and not planned", "DELETE FROM outbox WHERE kind = 'hold'", "1-asks"),
    ("effects", "a re-run that was decided and not planned", f"DELETE FROM outbox WHERE key = '{HEALS}'", "1-heals"),
    ("alerting", "an alert that nobody sends", "UPDATE lineages SET state = 'alerting' WHERE root = '1-told'", "1-told"),
    ("alerted", "told, but nobody took it", "UPDATE outbox SET state = 'dead' WHERE kind = 'notify'", "1-told"),
    ("flush", "alerts that nobody folds", "UPDATE outbox SET state = 'done', settled_at = due_at WHERE kind = 'flush'", None),
    ("notified", "a receiver that was passed over", "UPDATE alert_groups SET receivers = '[\"default\",\"boss\"]'", None),
    ("suppressed", "counted by nothing", "UPDATE lineages SET state = 'suppressed' WHERE root = '1-told'", "1-told"),
    ("incidents", "a group that nobody looks at", "UPDATE outbox SET state = 'done', settled_at = due_at WHERE kind = 'flush'", None),
    ("told", "a wrong count in messages", "UPDATE alert_groups SET told = told + 1", None),
    ("silenced", "silent without a silence", "UPDATE lineages SET state = 'silenced' WHERE root = '1-told'", "1-told"),
    ("silenced", "a silence without end", "DELETE FROM outbox WHERE key = 'silence:2'", "silence 2"),
    ("silenced", "a silence that told nothing", "DELETE FROM outbox WHERE key LIKE 'notify:silence:1:%'", "silence 1"),
    ("once", "a second row for an attempt", f"INSERT INTO outbox (key, kind, state, due_at, payload, root, created_at) SELECT 'triage-again', kind, state, due_at, payload, root, created_at FROM outbox WHERE key = '{LOST}'", "triage-again"),
    ("attempts", "an attempt that nobody can join", f"DELETE FROM lineage_links WHERE key = '{RUNS}'", "1-runs"),
    ("attempts", "a lineage that forgot its re-run", "UPDATE lineages SET attempt = 0 WHERE root = '1-heals'", "1-heals"),
    ("results", "one attempt under two request ids", "INSERT INTO lineage_links VALUES ('1-twice', '1-heals', 1, '')", "1-heals"),
    ("legal", "an unknown state", "UPDATE lineages SET state = 'asleep' WHERE root = '1-known'", "1-known"),
    ("legal", "an unknown kind of row", f"UPDATE outbox SET kind = 'retry' WHERE key = '{HEALS}'", HEALS),
    ("legal", "an unknown gate", f"UPDATE outbox SET gate = 'door' WHERE key = '{LOST}'", LOST),
    ("legal", "a breaker that is broken", "UPDATE functions SET breaker = 'broken' WHERE function = 'heals'", "heals"),
    ("legal", "a version below the first", "UPDATE lineages SET version = 0 WHERE root = '1-known'", "1-known"),
    ("leases", "a claim without an end", f"UPDATE outbox SET token = 'x' WHERE key = '{LOST}'", LOST),
    ("leases", "a claim of what is finished", f"UPDATE outbox SET token = 'x', lease_until = due_at WHERE key = '{HEALS}'", HEALS),
    ("leases", "a claim that a wrong clock made", f"UPDATE outbox SET token = 'x', attempts = 1, lease_until = '2031-01-01T00:00:00.000000Z' WHERE key = '{LOST}'", LOST),
    ("leases", "a due time that is none", f"UPDATE outbox SET due_at = 'soon' WHERE key = '{LOST}'", LOST),
    ("leases", "a payload that is none", f"UPDATE outbox SET payload = '{{' WHERE key = '{LOST}'", LOST),
    ("plans", "an item that is gone", f"{PLAN} VALUES {PLANNED[0]}", "abcdef012345"),
    ("plans", "a plan that nobody carries out", f"{PLAN} VALUES {PLANNED[1]}", "abcdef012345"),
    ("references", "rows of a lineage that is gone", "DELETE FROM lineages WHERE root = '1-known'", "envelopes 3"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("law", "sql", "named"),
    [(law, *rest) for law, _, *rest in SPOILT],
    ids=[f"{law}: {what}" for law, what, *_ in SPOILT],
)
def test_what_is_spoilt_is_found_and_named(healthy, tmp_path, law, sql, named):
    path = Path(shutil.copy(healthy, tmp_path / "triage.db"))
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(sql).rowcount >= 1
    found = broken(path)
    assert law in found, found
    assert named is None or named in [name for name, _ in found[law]], found


def test_every_law_can_be_broken():
    assert {law for law, *_ in SPOILT} == {law.id for law in LAWS} - {"file"}


def test_a_damaged_page_is_found(healthy: Path, tmp_path: Path):
    path = Path(shutil.copy(healthy, tmp_path / "triage.db"))
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'alerts'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 64)
    found = broken(path)
    assert "file" in found
    assert any("could not be checked" in problem for _, problem in found["alerting"]), found


def test_the_view_is_one_instant_and_does_not_block_whoever_writes(healthy: Path, tmp_path: Path):
    path = Path(shutil.copy(healthy, tmp_path / "triage.db"))
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with view(path) as connection:
            verdicts = check(connection, now=make.NOW + timedelta(hours=1))
            next(verdicts)
            writer.execute("UPDATE counters SET value = 0 WHERE name = 'received'")
            writer.execute("COMMIT")
            assert not any(verdict.broken for verdict in verdicts)
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                connection.execute("DELETE FROM counters")
    assert list(broken(path)) == ["received"]


def test_tables_of_another_version_are_left_alone(healthy: Path, tmp_path: Path):
    path = Path(shutil.copy(healthy, tmp_path / "triage.db"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM _sqlite_migrations")
    with pytest.raises(StoreUnavailable, match="older version of triage"), view(path):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('triage', 'm999', '')"
        )
    with pytest.raises(StoreUnavailable, match="newer version of triage"), view(path):
        pass


def command(folder: Path, *args: str):
    environ = {"TRIAGE_STATE_DIR": str(folder), "TRIAGE_CONFIG": None}
    return CliRunner(env=environ).invoke(cli, ["selfcheck", *args], prog_name="triage")


def test_the_command_prints_a_line_for_each_law_with_its_numbers(healthy: Path):
    done = command(healthy.parent)
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == len(LAWS)
    assert "received 15 = decided 12 + duplicates 1 + conflicts 1 + quarantined 1" in done.stdout
    assert "failures 11 = alerted 1 + suppressed 1 + silenced 2 + healed 1 + ignored 1 + held 5" in done.stdout
    assert f"All {len(LAWS)} laws hold" in done.stderr


def test_the_command_tells_what_is_broken_and_what_to_do(healthy: Path, tmp_path: Path):
    path = Path(shutil.copy(healthy, tmp_path / "triage.db"))
    with closing(sqlite3.connect(path)) as connection, connection:
        values = [(f"1-\x1b[2J{number:02}",) for number in range(SHOWN + 5)]
        connection.executemany("INSERT INTO groups VALUES (?, '', '', '', '', '', '', '', 1)", values)
    done = command(tmp_path)
    assert done.exit_code == 1
    assert "BROKEN  groups" in done.stdout
    assert "1-\\x1b[2J00: counts 1 failures, 0 are stored" in done.stdout
    assert "... and 5 more" in done.stdout
    assert "what to do: `triage failures list --group`" in done.stdout
    assert "\x1b" not in done.stdout
    assert "Broken: groups" in done.stderr
    told = json.loads(command(tmp_path, "--json", "--quick").stdout)
    assert not told["holds"]
    assert "file" not in [law["id"] for law in told["laws"]]
    (law,) = (law for law in told["laws"] if not law["holds"])
    assert law["broken"] == SHOWN + 5
    assert len(law["rows"]) == SHOWN


def test_the_command_says_that_there_is_no_store(tmp_path: Path):
    done = command(tmp_path)
    assert isinstance(done.exception, StoreUnavailable)
    assert not list(tmp_path.iterdir())
