"""The laws that hold of a store at every instant, as values: a sentence, the rows that break it, and what to do then.

Each is SQL over one consistent view. A law that is broken is a defect of triage, or somebody's hand in the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from triage.changes import RowKind
from triage.decide import Reason
from triage.envelope import Outcome
from triage.reruns.plan import ItemState, PlanState
from triage.rules.model import Cause
from triage.states import ACCOUNTED, ACCOUNTS, WAITING, RowState, State


@dataclass(frozen=True, slots=True)
class Law:
    """What must hold of a store.

    Attributes:
        id: for programs, and for the reference.
        sentence: what holds.
        numbers: SQL that gives one row; `told` is filled with its columns.
        told: the line that shows the numbers.
        broken: SQL that gives the rows that break the law: a name by which a person finds it, and what is wrong.
        mend: what to do about such rows.
    """

    id: str
    sentence: str
    numbers: str
    told: str
    broken: str
    mend: str


def _texts(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


_OPEN: Final = _texts({RowState.PENDING, RowState.UNKNOWN})
_LOOK: Final = "`triage failures show` tells its story."
_DEFECT: Final = "A defect of triage, or a change by hand: keep a copy of the file, and report it with these rows."
_COUNTERS: Final = ", ".join(
    f"coalesce((SELECT value FROM counters WHERE name = '{name}'), 0) AS {name}"
    for name in ("received", "decided", "duplicates", "conflicts", "quarantined")
)
_GONE: Final = ", ".join(
    f"coalesce((SELECT value FROM counters WHERE name = 'removed_{name}'), 0) AS {name}"
    for name in ("envelopes", "quarantined", "failures", "alerts")
)
"""What retention has removed."""
_STATES_OF: Final = {word: _texts(state for state, of in ACCOUNTED.items() if of == word) for word in ACCOUNTS}
_ACCOUNTS: Final = ", ".join(
    f"coalesce(sum(failures) FILTER (WHERE state IN ({states})), 0) AS {word}" for word, states in _STATES_OF.items()
)
_NOTIFY: Final = "o.key >= 'notify:' AND o.key < 'notify;'"  # by the index of keys
_FLUSH_OF: Final = "o.group_key, json_extract(o.payload, '$.flush')"
_AWAITED: Final = """CASE state WHEN 'rerunning' THEN 'expect:' || task_id(root, attempt)
        WHEN 'held' THEN 'hold:' || root ELSE task_id(root, attempt) END"""

FILE: Final = Law(
    "file",
    "The pages of the file are as SQLite wrote them.",
    "SELECT page_count AS pages, page_count * page_size / 1048576 AS size FROM pragma_page_count, pragma_page_size",
    "{pages:,} pages, {size:,} MiB",
    "SELECT 'the file', quick_check FROM pragma_quick_check(20) WHERE quick_check != 'ok'",
    "Stop the daemon and restore the file from a backup; `sqlite3 FILE .recover` saves what can be read.",
)

REFERENCES: Final = Law(
    "references",
    "Whatever a row refers to is stored.",
    "SELECT (SELECT count(*) FROM lineages) AS lineages, (SELECT count(*) FROM outbox) AS rows",
    "lineages {lineages:,}, outbox rows {rows:,}",
    """SELECT "table" || ' ' || coalesce(rowid, '?'), 'refers to a row of ' || parent || ' that is not there'
    FROM pragma_foreign_key_check""",
    _DEFECT,
)

SUMS: Final = (
    Law(
        "received",
        "received = decided + duplicates + conflicts + quarantined",
        f"SELECT {_COUNTERS}",
        "received {received:,} = decided {decided:,} + duplicates {duplicates:,} + conflicts {conflicts:,}"
        " + quarantined {quarantined:,}",
        f"""SELECT 'counters', 'received ' || received || ', but the others make '
            || (decided + duplicates + conflicts + quarantined)
        FROM (SELECT {_COUNTERS}) WHERE received != decided + duplicates + conflicts + quarantined""",
        "A message was lost or counted twice. " + _DEFECT,
    ),
    Law(
        "stored",
        "What was counted as decided or quarantined is stored or past its retention, and nothing else is stored.",
        "SELECT (SELECT count(*) FROM envelopes) AS envelopes, (SELECT count(*) FROM quarantine) AS quarantined,"
        f" (SELECT count(*) FROM conflicts) AS conflicts, envelopes + quarantined AS removed FROM (SELECT {_GONE})",
        "envelopes {envelopes:,}, quarantined {quarantined:,}, conflicting bodies {conflicts:,}, removed {removed:,}",
        f"""WITH counted AS (SELECT {_COUNTERS}), gone AS (SELECT {_GONE})
        SELECT name, counted || ' counted, ' || stored || ' stored or removed' FROM (
            SELECT 'decided' AS name, decided AS counted, (SELECT count(*) FROM envelopes) + gone.envelopes AS stored
                FROM counted, gone
            UNION ALL SELECT 'quarantined', counted.quarantined,
                (SELECT count(*) FROM quarantine) + gone.quarantined FROM counted, gone
            UNION ALL SELECT 'conflicts', conflicts, (SELECT count(*) FROM conflicts) FROM counted
        ) WHERE stored > counted OR (stored < counted AND name != 'conflicts')""",  # the same body may come again
        "Rows were deleted or added by hand, or the file was restored in part. " + _DEFECT,
    ),
    Law(
        "decided",
        "Every stored envelope has one decision.",
        "SELECT count(*) AS envelopes FROM envelopes",
        "envelopes {envelopes:,}",
        """SELECT e.request_id, CASE WHEN d.id IS NULL THEN 'has no decision'
            ELSE 'its decision is about ' || d.request_id END
        FROM envelopes e LEFT JOIN decisions d ON d.id = e.id
        WHERE d.id IS NULL OR d.request_id != e.request_id""",
        "Nothing will happen about these by itself. " + _DEFECT,
    ),
    Law(
        "failures",
        "failures = " + " + ".join(ACCOUNTS) + " + removed",
        f"SELECT (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'failures') AS failures,"
        f" (SELECT failures FROM (SELECT {_GONE})) AS removed, {_ACCOUNTS} FROM lineages",
        "failures {failures:,} = " + " + ".join(f"{word} {{{word}:,}}" for word in (*ACCOUNTS, "removed")),
        f"""SELECT 'counters', 'failures ' || counted || ', but ' || stand || ' in some state' FROM (
            SELECT coalesce((SELECT value FROM counters WHERE name = 'failures'), 0) AS counted,
            (SELECT coalesce(sum(failures), 0) FROM lineages WHERE state IN ({_texts(ACCOUNTED)}))
                + (SELECT failures FROM (SELECT {_GONE})) AS stand)
        WHERE counted != stand""",
        "`triage status` shows the states. " + _DEFECT,
    ),
    Law(
        "members",
        "Every failed envelope belongs to one lineage, which counts it; the event of every lineage is stored.",
        "SELECT count(*) AS lineages, coalesce(sum(failures), 0) AS failures FROM lineages",
        "failures {failures:,} in {lineages:,} lineages",
        """SELECT l.root, 'counts ' || l.failures || ' failures, ' || coalesce(e.failed, 0) || ' are stored'
        FROM lineages l LEFT JOIN (
            SELECT root, count(*) AS failed FROM envelopes WHERE outcome = 'failed' GROUP BY root) e ON e.root = l.root
        WHERE l.failures != coalesce(e.failed, 0)
        UNION ALL
        SELECT request_id, 'is a failure without a lineage' FROM envelopes WHERE outcome = 'failed' AND root IS NULL
        UNION ALL
        SELECT root, 'the envelope that began it is not stored' FROM lineages
        WHERE root NOT IN (SELECT request_id FROM envelopes)""",
        _LOOK + " " + _DEFECT,
    ),
    Law(
        "groups",
        "In the failure groups, too, the failures are those in all states together.",
        "SELECT count(*) AS groups, coalesce(sum(count), 0) AS failures FROM groups",
        "failures {failures:,} in {groups:,} groups",
        f"""SELECT fingerprint, 'counts ' || sum(counted) || ' failures, ' || sum(stored) || ' are stored' FROM (
            SELECT fingerprint, count AS counted, 0 AS stored FROM groups
            UNION ALL
            SELECT fingerprint, 0, count(*) FROM envelopes WHERE outcome = 'failed' GROUP BY fingerprint
        ) GROUP BY fingerprint HAVING sum(counted) < sum(stored)
            OR (sum(counted) > sum(stored) AND (SELECT failures FROM (SELECT {_GONE})) = 0)
        UNION ALL
        SELECT 'counters', counted || ' failures are counted by groups, ' || stored || ' are stored or removed' FROM (
            SELECT (SELECT coalesce(sum(count), 0) FROM groups) AS counted,
            (SELECT count(*) FROM envelopes WHERE outcome = 'failed')
                + gone.failures AS stored FROM (SELECT {_GONE}) gone WHERE gone.failures > 0)
        WHERE counted != stored""",
        "`triage failures list --group` shows its failures. " + _DEFECT,
    ),
)

ENDS: Final = (
    Law(
        "waiting",
        "Whatever waits has an unfinished outbox row that ends the waiting: nothing is held for ever.",
        f"SELECT count(*) AS waiting FROM lineages WHERE state IN ({_texts(WAITING)})",
        "{waiting:,} wait",
        f"""SELECT l.root, l.state || ', re-run ' || l.attempt || ': there is no unfinished outbox row ' || l.key
        FROM (SELECT root, state, attempt, {_AWAITED} AS key FROM lineages WHERE state IN ({_texts(WAITING)})) l
        LEFT JOIN outbox o ON o.key = l.key AND o.root = l.root AND o.state IN ({_OPEN})
        WHERE o.id IS NULL""",
        "These would wait for ever: look what became of the last re-run in the provider's console. " + _LOOK,
    ),
    Law(
        "over",
        "No re-run, deadline or end of a hold is still to come for a failure that does not wait for it.",
        f"SELECT count(*) AS rows FROM outbox WHERE state IN ({_OPEN}) AND kind IN ('rerun', 'expect', 'hold')",
        "{rows:,} to come",
        f"""SELECT o.key, o.kind || ' to come for ' || coalesce(l.root, 'nothing')
            || coalesce(', which is ' || l.state || ' after re-run ' || l.attempt, '')
        FROM outbox o LEFT JOIN (SELECT root, state, attempt, {_AWAITED} AS awaited FROM lineages) l ON l.root = o.root
        WHERE o.state IN ({_OPEN}) AND o.kind IN ('rerun', 'expect', 'hold')
            AND (l.root IS NULL OR l.state NOT IN ({_texts(WAITING)}) OR o.key != l.awaited)""",
        "When it is due it finds that the failure has moved on. " + _DEFECT,
    ),
    Law(
        "effects",
        "Every effect of a decision has its row: a re-run, a question, a hold, an alert.",
        "SELECT count(*) AS decisions FROM decisions WHERE effects != '[]'",
        "decisions with effects {decisions:,}",
        """SELECT request_id, kind || ': there is no row ' || coalesce(key, cause) FROM (
            SELECT d.request_id, json_extract(x.value, '$.kind') AS kind, json_extract(x.value, '$.cause') AS cause,
                CASE json_extract(x.value, '$.kind') WHEN 'rerun' THEN json_extract(x.value, '$.task_id')
                    WHEN 'resolve' THEN 'resolve:' || json_extract(x.value, '$.task_id')
                    WHEN 'hold' THEN 'hold:' || (SELECT root FROM envelopes e WHERE e.id = d.id) END AS key
            FROM decisions d, json_each(d.effects) x WHERE d.effects != '[]')
        WHERE CASE kind WHEN 'alert' THEN (request_id, cause) NOT IN (SELECT request_id, cause FROM alerts)
            ELSE coalesce(key, '') NOT IN (SELECT key FROM outbox) END""",
        "Decided and not done. " + _LOOK + " " + _DEFECT,
    ),
)

ALERTS: Final = (
    Law(
        "alerting",
        "Whatever is being told has an alert that waits, or is being delivered, or could not be.",
        "SELECT count(*) AS alerting FROM lineages WHERE state = 'alerting'",
        "{alerting:,} are being told",
        f"""SELECT root, 'is alerting, but no alert of it is under way' FROM lineages
        WHERE state = 'alerting' AND root NOT IN (
            SELECT root FROM alerts WHERE root IS NOT NULL AND (flush IS NULL OR (group_key, flush) IN (
                SELECT {_FLUSH_OF} FROM outbox o WHERE {_NOTIFY} AND o.state != 'done')))""",
        "Nobody will be told of these: tell them yourself. " + _LOOK,
    ),
    Law(
        "alerted",
        "A receiver has taken an alert of everything that counts as alerted.",
        "SELECT count(*) AS alerted FROM lineages WHERE state = 'alerted'",
        "{alerted:,} were told",
        f"""SELECT root, 'counts as alerted, but no receiver has taken an alert of it' FROM lineages
        WHERE state = 'alerted' AND root NOT IN (
            SELECT root FROM alerts WHERE root IS NOT NULL AND (group_key, flush) IN (
                SELECT {_FLUSH_OF} FROM outbox o WHERE {_NOTIFY}
                AND (o.state = 'done' OR json_array_length(o.payload, '$.sent') > 0)))""",
        "Nobody was told of these: tell them yourself. " + _LOOK,
    ),
    Law(
        "flush",
        "Alerts that wait for their group have an unfinished row that flushes it.",
        "SELECT count(*) AS waiting FROM alerts WHERE flush IS NULL",
        "{waiting:,} alerts wait",
        f"""SELECT g.group_key, g.waiting || ' alerts wait, and no unfinished outbox row is flush:' || g.group_key
        FROM (SELECT group_key, count(*) AS waiting FROM alerts WHERE flush IS NULL GROUP BY group_key) g
        LEFT JOIN outbox o ON o.key = 'flush:' || g.group_key AND o.state IN ({_OPEN}) WHERE o.id IS NULL""",
        "The next failure of the group flushes it. " + _DEFECT,
    ),
    Law(
        "notified",
        "Every flush made a notification for every receiver of its group, unless a silence kept it from one.",
        "SELECT coalesce(sum(flushes), 0) AS flushes, count(*) AS groups FROM alert_groups",
        "{flushes:,} flushes of {groups:,} groups",
        """SELECT f.group_key, 'flush ' || f.flush || ' made no notification for ' || r.value
        FROM (SELECT DISTINCT group_key, flush FROM alerts WHERE flush IS NOT NULL) f
        JOIN alert_groups g ON g.key = f.group_key, json_each(g.receivers) r
        WHERE 'notify:' || f.group_key || ':' || f.flush || ':' || r.value NOT IN (SELECT key FROM outbox)
            AND (f.group_key, r.value) NOT IN (SELECT group_key, receiver FROM silenced)""",
        "This receiver was not told. " + _DEFECT,
    ),
    Law(
        "told",
        "An alert group counts its flushes, and the alerts that went into them, told and silenced.",
        "SELECT coalesce(sum(told), 0) AS told, coalesce(sum(silenced), 0) AS silenced FROM alert_groups",
        "{told:,} alerts were told, {silenced:,} silenced",
        f"""SELECT g.key, 'counts ' || g.told || ' alerts told and ' || g.silenced || ' silenced in ' || g.flushes
            || ' flushes, stored are ' || coalesce(a.told, 0) || ' and ' || coalesce(a.silenced, 0) || ' in '
            || coalesce(a.flushes, 0)
        FROM alert_groups g LEFT JOIN (
            SELECT group_key, count(*) - count(silence) AS told, count(silence) AS silenced, max(flush) AS flushes
            FROM alerts WHERE flush IS NOT NULL GROUP BY group_key) a ON a.group_key = g.key
        WHERE g.told < coalesce(a.told, 0) OR g.silenced < coalesce(a.silenced, 0) OR g.flushes < coalesce(a.flushes, 0)
        UNION ALL
        SELECT 'counters', counted || ' alerts are counted as flushed, ' || stored || ' are stored or removed' FROM (
            SELECT (SELECT coalesce(sum(told + silenced), 0) FROM alert_groups) AS counted,
            (SELECT count(*) FROM alerts WHERE flush IS NOT NULL) + (SELECT alerts FROM (SELECT {_GONE})) AS stored)
        WHERE counted != stored""",
        "The counts in messages of this group are wrong. " + _DEFECT,
    ),
    Law(
        "silenced",
        "A silence kept an alert of whatever counts as silenced; every silence ends, and then tells of it.",
        "SELECT (SELECT count(*) FROM lineages WHERE state = 'silenced') AS silenced,"
        " (SELECT count(*) FROM silences WHERE ended_at IS NULL) AS silences",
        "{silenced:,} are silenced, {silences:,} silences in force",
        f"""SELECT root, 'counts as silenced, but no silence kept an alert of it' FROM lineages
        WHERE state = 'silenced' AND root NOT IN (
            SELECT root FROM alerts WHERE silence IS NOT NULL AND root IS NOT NULL)
        UNION ALL
        SELECT 'silence ' || s.id, 'no unfinished outbox row ends it' FROM silences s
        WHERE s.ended_at IS NULL AND 'silence:' || s.id NOT IN (SELECT key FROM outbox WHERE state IN ({_OPEN}))
        UNION ALL
        SELECT 'silence ' || s.id, 'has ended, and did not tell ' || t.receiver || ' what it kept quiet'
        FROM silences s JOIN silenced t ON t.silence = s.id WHERE s.ended_at IS NOT NULL
            AND 'notify:silence:' || s.id || ':over:' || t.receiver NOT IN (SELECT key FROM outbox)""",
        "Nobody will be told of these: `triage silence show` tells what they are. " + _DEFECT,
    ),
)

ONCE: Final = (
    Law(
        "once",
        "A re-run has one row; its key, the task id, follows from lineage and attempt: the provider refuses a repeat.",
        "SELECT count(*) AS reruns FROM outbox WHERE kind = 'rerun'",
        "{reruns:,} re-runs",
        """SELECT key, 'is re-run ' || coalesce(json_extract(payload, '$.attempt'), '?') || ' of '
            || coalesce(root, '?') || ', whose task id is another'
        FROM outbox WHERE kind = 'rerun'
            AND (root IS NULL OR key IS NOT task_id(root, json_extract(payload, '$.attempt')))""",
        "It may have run twice: look in the provider's console. " + _DEFECT,
    ),
    Law(
        "attempts",
        "A lineage counts its re-runs; each is linked by its task id, or by its request id if it was begun elsewhere.",
        "SELECT coalesce(sum(attempt), 0) AS attempts FROM lineages",
        "{attempts:,} attempts",
        """SELECT l.root, 'counts ' || l.attempt || ' re-runs, ' || coalesce(k.begun, 0) || ' are linked, up to number '
            || coalesce(k.last, 0)
        FROM lineages l LEFT JOIN (
            SELECT root, max(attempt) AS last,
                count(*) FILTER (WHERE origin != '' OR key = task_id(root, attempt)) AS begun
            FROM lineage_links GROUP BY root) k ON k.root = l.root
        WHERE l.attempt != coalesce(k.last, 0) OR l.attempt != coalesce(k.begun, 0)
        UNION ALL
        SELECT root, 're-run ' || attempt || ' has no outbox row ' || key FROM lineage_links
        WHERE key = task_id(root, attempt) AND key NOT IN (SELECT key FROM outbox)""",
        "A result of such a re-run would begin a lineage of its own. " + _LOOK + " " + _DEFECT,
    ),
    Law(
        "results",
        "A re-run has one request id, unless its rule says that it may run twice (idempotent).",
        "SELECT count(*) AS requests FROM lineage_links WHERE key != task_id(root, attempt)",
        "{requests:,} request ids of re-runs",
        """SELECT k.root, 're-run ' || k.attempt || ' ran under several request ids: ' || k.ids
        FROM (SELECT root, attempt, group_concat(key, ', ') AS ids FROM lineage_links
            WHERE key != task_id(root, attempt) GROUP BY root, attempt HAVING count(*) > 1) k
        LEFT JOIN outbox o ON o.key = task_id(k.root, k.attempt)
        WHERE NOT coalesce(json_extract(o.payload, '$.idempotent'), 0)""",
        "It may have run twice: look in the provider's console for these request ids.",
    ),
)

FORMS: Final = (
    Law(
        "legal",
        "Every state, kind, outcome, reason and cause is a known one; no count or version is below the least there is.",
        "SELECT count(*) AS lineages FROM lineages",
        "lineages {lineages:,}",
        " UNION ALL ".join(
            f"SELECT {name}, '{column} is ' || {column} FROM {table} WHERE {column} NOT IN ({_texts(known)})"
            for table, name, column, known in (
                ("lineages", "root", "state", set(State) - {State.NEW}),
                ("outbox", "key", "state", RowState),
                ("outbox", "key", "kind", RowKind),
                ("envelopes", "request_id", "outcome", Outcome),
                ("decisions", "request_id", "reason", set(Reason) - {Reason.DUPLICATE, Reason.CONFLICT}),
                ("alerts", "request_id", "cause", Cause),
                ("deliveries", "key", "result", ("sent", "failed", "dead")),
            )
        )
        + """ UNION ALL
        SELECT root, 'version ' || version || ', attempt ' || attempt || ', by hand ' || manual
            || ', failures ' || failures
        FROM lineages WHERE version < 1 OR attempt < 0 OR manual NOT BETWEEN 0 AND attempt OR failures < 0
        UNION ALL SELECT name, 'counts ' || value FROM counters WHERE value < 0""",
        "The daemon cannot work on such a row. " + _DEFECT,
    ),
    Law(
        "leases",
        "A claim is a token with an end not far off, on an unfinished row; a finished row says when it was finished.",
        f"SELECT count(lease_until) AS claimed, count(*) AS rows FROM outbox WHERE state IN ({_OPEN})",
        "{claimed:,} of {rows:,} unfinished rows are claimed",
        f"""SELECT key, problem FROM (SELECT key, CASE
            WHEN (token IS NULL) != (lease_until IS NULL) THEN 'has a token or an end of its lease, but not both'
            WHEN state NOT IN ({_OPEN}) AND token IS NOT NULL THEN 'is ' || state || ', and still claimed'
            WHEN (settled_at IS NULL) != (state IN ({_OPEN})) THEN 'is ' || state || ', and settled at ' ||
                coalesce(settled_at, 'no time')
            WHEN lease_until IS NOT NULL AND attempts < 1 THEN 'is claimed, and was never tried'
            WHEN lease_until > :far THEN 'is claimed until ' || lease_until || ': nobody else takes it before'
            WHEN due_at NOT GLOB :instant OR coalesce(lease_until, due_at) NOT GLOB :instant
                THEN 'is due at ' || due_at || ', which is no instant'
            WHEN NOT json_valid(payload) THEN 'its payload is no JSON' END AS problem FROM outbox)
        WHERE problem IS NOT NULL""",
        "Was the clock of this machine wrong? Otherwise: " + _DEFECT,
    ),
)

_MISCOUNTED: Final = " OR ".join(
    f"{state} != (SELECT count(*) FROM plan_items i WHERE i.plan = p.id AND i.state = '{state}')" for state in ItemState
)
PLANS: Final = Law(
    "plans",
    "A plan counts its items; one that runs, or awaits results, has an unfinished outbox row that goes on with it.",
    "SELECT count(*) AS plans, (SELECT count(*) FROM plan_items) AS items FROM plans",
    "plans {plans:,}, their items {items:,}",
    f"""SELECT substr(hash, 1, 12), 'the items in some state are not as many as it counts' FROM plans p
        WHERE {_MISCOUNTED}
    UNION ALL SELECT substr(hash, 1, 12), 'is ' || state || ', with ' || ordered || ' under way, and no row goes on'
    FROM plans p WHERE (state = '{PlanState.RUNNING}' OR ordered > 0) AND NOT EXISTS (
        SELECT 1 FROM outbox o WHERE o.key = 'plan:' || p.hash AND o.state IN ({_OPEN}))""",
    "Cancel the plan and make a new one: what has run is left out of it. " + _DEFECT,
)

LAWS: Final = (FILE, REFERENCES, *SUMS, *ENDS, *ALERTS, *ONCE, PLANS, *FORMS)
"""All of them, in the order in which they are checked: what others rest upon comes first."""
