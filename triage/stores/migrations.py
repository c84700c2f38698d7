"""The schema of the SQLite store, as migrations. Plain tables; foreign keys are there for people who browse them.

Never change a migration that was released: add one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

from sqlite_utils import Database, Migrations

from triage.errors import StoreUnavailable

MIGRATIONS: Final = Migrations("triage")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date; safe when several processes do it at once.

    Raises:
        StoreUnavailable: a newer version of triage has been at this file.
    """
    db = Database(connection, execute_plugins=False)
    refuse_newer(db)
    if not MIGRATIONS.pending(db):
        return
    # `apply` looks first and creates then, each in its own transaction: of several processes all but one would fail.
    connection.execute("BEGIN IMMEDIATE")
    try:
        refuse_newer(db)
        MIGRATIONS.apply(db)
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def refuse_other_versions(connection: sqlite3.Connection) -> None:
    """Let nobody read the tables of another version.

    Raises:
        StoreUnavailable: a newer or an older version of triage has made them.
    """
    db = Database(connection, execute_plugins=False)
    refuse_newer(db)
    if MIGRATIONS.pending(db):
        raise StoreUnavailable(
            "the database is of an older version of triage: `triage run` or `triage status` brings it up to date"
        )


def refuse_newer(db: Database) -> None:
    """Refuse a schema that this version does not know.

    Raises:
        StoreUnavailable: a newer version of triage has been at this file.
    """
    ours = known()
    strangers = [name for name in applied(db) if name not in ours]
    if strangers:
        raise StoreUnavailable(
            f"the database was written by a newer version of triage (it has {strangers[-1]!r}): "
            "use that version, or name another file"
        )


def applied(db: Database) -> list[str]:
    """The names of the migrations that a database has been through, the oldest first."""
    return [migration.name for migration in MIGRATIONS.applied(db)]


def known() -> list[str]:
    """The names of all migrations of this version, the oldest first."""
    with closing(sqlite3.connect(":memory:")) as empty:
        return [migration.name for migration in MIGRATIONS.pending(Database(empty, execute_plugins=False))]


_TYPES: Final[Mapping[str, type]] = {"": str, "int": int, "float": float, "bytes": bytes}


def _create(db: Database, name: str, columns: str, key: tuple[str, ...] = (), **options: Any) -> None:
    """Create a strict table.

    Args:
        columns: a list of ``name`` (text) and ``name:type``, with ``?`` where NULL is allowed.
        key: columns of the key; the first one, when not given.
    """
    spec = [column.rstrip("?").partition(":") for column in columns.split()]
    types = {column: _TYPES[kind] for column, _, kind in spec}
    key = key or (spec[0][0],)
    # An integer key that is NULL on insert is what makes SQLite choose one.
    required = {column for column, given in zip(types, columns.split(), strict=True) if not given.endswith("?")}
    not_null = required - (set(key) if types[key[0]] is int else set())
    db.table(name).create(types, pk=key[0] if len(key) == 1 else key, not_null=not_null, strict=True, **options)


@MIGRATIONS()
def m001_initial(db: Database) -> None:
    """All tables of the first release."""
    _create(db, "counters", "name value:int")
    _create(db, "meta", "key value")
    _create(db, "rule_sets", "digest loaded_at sources")
    _create(db, "groups", "fingerprint function condition error_type message first_seen last_seen back_since count:int")
    _create(db, "group_minutes", "fingerprint minute:int count:int", key=("fingerprint", "minute"))
    db.table("group_minutes").create_index(["minute"])
    _lineages(db)
    _envelopes(db)
    _alerts(db)
    _outbox(db)
    _create(db, "deeds", "id:int at by action reason root request_id", foreign_keys=[("root", "lineages", "root")])
    db.table("deeds").create_index(["root"])


def _lineages(db: Database) -> None:
    _create(
        db,
        "lineages",
        "root state attempt:int started_at updated_at rule_id version:int failures:int manual:int function payload_key",
    )
    db.execute("CREATE INDEX idx_lineages_unknown ON lineages(payload_key) WHERE state = 'unknown'")
    _create(db, "lineage_links", "key root attempt:int", foreign_keys=[("root", "lineages", "root")])


def _envelopes(db: Database) -> None:
    _create(
        db,
        "envelopes",
        "id:int request_id function service qualifier region account condition outcome error_type error_message"
        " invoke_count:int? status_code:int? timestamp? received_at enqueued_at? source message_id fingerprint digest"
        " root? attempt:int body:bytes",
        foreign_keys=[("root", "lineages", "root")],
    )
    db.table("envelopes").create_index(["request_id"], unique=True)
    db.table("envelopes").create_index(["received_at"])
    # Most lineages are one envelope, whose request id is the root; only the others need finding.
    db.execute("CREATE INDEX idx_envelopes_members ON envelopes(root) WHERE attempt > 0")
    _create(
        db,
        "decisions",
        "id:int request_id decided_at reason rule_id rule_set facts effects also shadow",  # the id is the envelope's
        foreign_keys=[("id", "envelopes", "id"), ("rule_set", "rule_sets", "digest")],
    )
    _create(
        db,
        "conflicts",
        "id:int request_id digest received_at source message_id body:bytes",
        foreign_keys=[("request_id", "envelopes", "request_id")],
    )
    db.table("conflicts").create_index(["request_id", "digest"], unique=True)
    _create(db, "quarantine", "id:int received_at source message_id reason place detail body:bytes")
    # A source that gives no ids tells nothing of a message's being the same.
    db.execute("CREATE UNIQUE INDEX idx_quarantine_message ON quarantine(message_id, source) WHERE message_id != ''")


def _alerts(db: Database) -> None:
    _create(
        db,
        "alert_groups",
        "key receivers severity labels group_wait:float group_interval:float created_at flushes:int told:int",
        defaults={"flushes": 0, "told": 0},
    )
    _create(
        db,
        "alerts",
        "id:int group_key root? request_id cause detail at flush:int?",
        foreign_keys=[("group_key", "alert_groups", "key"), ("root", "lineages", "root")],
    )
    db.table("alerts").create_index(["group_key", "flush"])
    db.execute("CREATE INDEX idx_alerts_root ON alerts(root) WHERE root IS NOT NULL")
    _create(
        db,
        "deliveries",
        "id:int key receiver result note at group_key? flush:int?",
        foreign_keys=[("group_key", "alert_groups", "key")],
    )
    db.table("deliveries").create_index(["group_key", "flush"])


def _outbox(db: Database) -> None:
    _create(
        db,
        "outbox",
        "id:int key kind state due_at payload root? group_key? attempts:int token? lease_until? note created_at"
        " settled_at?",
        defaults={"attempts": 0, "note": ""},
        foreign_keys=[("root", "lineages", "root"), ("group_key", "alert_groups", "key")],
    )
    db.table("outbox").create_index(["key"], unique=True)
    db.execute("CREATE INDEX idx_outbox_due ON outbox(due_at) WHERE state IN ('pending', 'unknown')")
    db.execute("CREATE INDEX idx_outbox_open ON outbox(lease_until) WHERE lease_until IS NOT NULL OR state = 'unknown'")
    db.execute("CREATE INDEX idx_outbox_root ON outbox(root) WHERE root IS NOT NULL")


@MIGRATIONS()
def m002_origin_of_attempts(db: Database) -> None:
    """The link that an attempt begins with tells who wanted it; of those before, what can be known."""
    db.execute("ALTER TABLE lineage_links ADD COLUMN origin TEXT NOT NULL DEFAULT ''")
    db.execute(
        """
        UPDATE lineage_links SET origin = 'automatic'
        WHERE attempt > 0 AND key GLOB 'triage-*' AND root IN (SELECT root FROM lineages WHERE manual = 0)"""
    )


@MIGRATIONS()
def m003_gates(db: Database) -> None:
    """Where a re-run waits, and of which function it is; what is switched off, and was."""
    db.execute("ALTER TABLE outbox ADD COLUMN function TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE outbox ADD COLUMN gate TEXT NOT NULL DEFAULT ''")
    db.execute(
        """
        UPDATE outbox
        SET function = trim(payload ->> '$.function.service' || '/' || (payload ->> '$.function.name'), '/')
        WHERE state IN ('pending', 'unknown') AND payload ->> '$.function.name' IS NOT NULL"""
    )
    db.execute("CREATE INDEX idx_outbox_gate ON outbox(gate, function) WHERE gate != ''")
    _create(
        db,
        "switches",
        "id:int scope pattern by reason at on_at? on_by on_reason",
        defaults={"on_by": "", "on_reason": ""},
    )
    db.execute("CREATE UNIQUE INDEX idx_switches_off ON switches(scope, pattern) WHERE on_at IS NULL")


@MIGRATIONS()
def m004_plans(db: Database) -> None:
    """Plans of re-runs. ``attempt`` of an item is the last one when the plan was made, then the one it has ordered."""
    counts = "excluded:int waiting:int ordered:int succeeded:int failed:int skipped:int"
    _create(
        db,
        "plans",
        "id:int hash state created_at by reason selection qualifier threshold:int sizes step:int rung:int receivers"
        f" note changed_at? functions typical:float? {counts}",
    )
    db.table("plans").create_index(["hash"], unique=True)
    _create(
        db,
        "plan_items",
        "id:int plan:int request_id root attempt:int state reason step:int",
        foreign_keys=[("plan", "plans", "id")],  # none to lineages: a plan keeps none of them from its retention
    )
    db.table("plan_items").create_index(["plan", "state"])
    db.execute("CREATE INDEX idx_plan_items_step ON plan_items(plan, step) WHERE step > 0")
    db.execute("ALTER TABLE deeds ADD COLUMN about TEXT NOT NULL DEFAULT ''")
    db.execute("CREATE INDEX idx_deeds_about ON deeds(about) WHERE about != ''")


@MIGRATIONS()
def m005_deeds_about_no_failure(db: Database) -> None:
    """What people do is not always about a failure, and a reference to nothing is no reference."""
    db.table("deeds").transform(not_null={"root": False})
    db.execute("UPDATE deeds SET root = NULL WHERE root = ''")


@MIGRATIONS()
def m006_silences(db: Database) -> None:
    """Silences, what they keep quiet, and what they look at in an alert."""
    _create(db, "silences", "id:int matchers by reason created_at ends_at quiet_for:float? receivers ended_at? ended")
    _create(
        db,
        "silenced",
        "silence:int group_key receiver count:int first_at last_at",
        key=("silence", "group_key", "receiver"),
        foreign_keys=[("silence", "silences", "id"), ("group_key", "alert_groups", "key")],
    )
    _create(db, "alert_kinds", "key labels")
    db.execute("ALTER TABLE alerts ADD COLUMN kind TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE alerts ADD COLUMN silence INTEGER")
    db.execute("CREATE INDEX idx_alerts_silence ON alerts(silence) WHERE silence IS NOT NULL")
    db.execute("ALTER TABLE alert_groups ADD COLUMN silenced INTEGER NOT NULL DEFAULT 0")


@MIGRATIONS()
def m007_standings(db: Database) -> None:
    """How functions stand with their re-runs: pace, budget, breaker; in the row without a name, how all together do."""
    _create(
        db,
        "functions",
        "function next_at? since? share:float credit:float floor_from? breaker ok:int bad:int streak:int submitted:int"
        " counted_from? until? pause:float heard:int",
        defaults={
            **dict.fromkeys(("ok", "bad", "streak", "submitted", "heard"), 0),
            "share": 1.0,
            "credit": 0.0,
            "pause": 0.0,
            "breaker": "closed",
        },
    )


@MIGRATIONS()
def m008_messages_by_receiver(db: Database) -> None:
    """What else there is for a receiver, and what could not be delivered, without looking through everything."""
    db.table("deliveries").create_index(["receiver", "at"])
    db.execute(
        "CREATE INDEX idx_outbox_receiver ON outbox(json_extract(payload, '$.receiver'))"
        " WHERE kind = 'notify' AND state IN ('pending', 'unknown')"
    )
    db.execute("CREATE INDEX idx_outbox_dead ON outbox(kind) WHERE state = 'dead'")


@MIGRATIONS()
def m009_incidents(db: Database) -> None:
    """What is remembered of alert groups: where they stand, what was told, what a rule says of the messages to come."""
    for column in ("course TEXT NOT NULL DEFAULT '{}'", "state TEXT NOT NULL DEFAULT 'waiting'",
                   "code TEXT NOT NULL DEFAULT ''", "looked_at TEXT", "incident TEXT NOT NULL DEFAULT '{}'",
                   "suppressed INTEGER NOT NULL DEFAULT 0"):  # fmt: skip
        db.execute(f"ALTER TABLE alert_groups ADD COLUMN {column}")
    db.execute(
        """
        UPDATE alert_groups SET state = 'resolved', incident = '{"state":"resolved"}' WHERE key NOT IN (
            SELECT group_key FROM outbox WHERE kind = 'flush' AND state IN ('pending', 'unknown'))"""
    )


@MIGRATIONS()
def m010_arrivals(db: Database) -> None:
    """When each function was last heard of from each source."""
    _create(db, "arrivals", "function source at", key=("function", "source"))
    db.execute(
        "INSERT INTO arrivals SELECT function, source, max(received_at) FROM envelopes GROUP BY function, source"
    )


@MIGRATIONS()
def m011_successes(db: Database) -> None:
    """How often each function has succeeded, for alert groups that this may end."""
    db.execute("ALTER TABLE functions ADD COLUMN succeeded INTEGER NOT NULL DEFAULT 0")


@MIGRATIONS()
def m012_events(db: Database) -> None:
    """Failures by the event they began with, and how often events come again (`triage.reruns.elsewhere`)."""
    db.execute("CREATE INDEX idx_lineages_event ON lineages(payload_key, started_at)")
    _create(db, "event_samples", "function since runs before")


@MIGRATIONS()
def m013_symptoms(db: Database) -> None:
    """The alert groups that a cause keeps quiet, without looking through all."""
    db.execute(
        "CREATE INDEX idx_alert_groups_inhibited ON alert_groups(json_extract(incident, '$.inhibited'))"
        " WHERE json_extract(incident, '$.inhibited') != ''"
    )


@MIGRATIONS()
def m014_codes(db: Database) -> None:
    """Codes are kept, not reckoned again: what has a shorter one keeps it. They are looked up by their beginning."""
    db.execute("UPDATE alert_groups SET incident = json_set(incident, '$.code', code) WHERE code != ''")
    db.table("alert_groups").create_index(["code"])
    db.execute("CREATE INDEX idx_outbox_code ON outbox(json_extract(payload, '$.code')) WHERE kind = 'notify'")


@MIGRATIONS()
def m015_drills(db: Database) -> None:
    """Drills that were ordered, each by the request id and the digest of the one envelope that is it."""
    _create(db, "drills", "request_id digest by at receiver rerun:int")
