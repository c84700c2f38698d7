"""The laws that hold of a store at every instant, as values: a sentence, the rows that break it, and what to do then.

Each is SQL over one consistent view. A law that is broken is a defect of triage, or somebody's hand in the file.
"""

from __future__ import annotations

from typing import Final

from triage.changes import RowKind
from triage.decide import Reason
from triage.drills import GLOB
from triage.envelope import Outcome
from triage.incident import GroupState
from triage.line import DELIVERIES
from triage.reruns.breaker import BreakerState
from triage.reruns.gate import AWAITED, Gate
from triage.reruns.plan import ItemState, PlanState
from triage.rules.model import Cause
from triage.states import ACCOUNTED, ACCOUNTS, WAITING, RowState, State
from triage.stores.alertlaws import ALERTS
from triage.stores.law import DEFECT, GONE, LOOK, OPEN, Law, texts
from triage.stores.records import DRILL_OUTCOME

_COUNTERS: Final = ", ".join(
    f"coalesce((SELECT value FROM counters WHERE name = '{name}'), 0) AS {name}"
    for name in ("received", "decided", "duplicates", "conflicts", "quarantined")
)
_STATES_OF: Final = {word: texts(state for state, of in ACCOUNTED.items() if of == word) for word in ACCOUNTS}
_ACCOUNTS: Final = ", ".join(
    f"coalesce(sum(failures) FILTER (WHERE state IN ({states})), 0) AS {word}" for word, states in _STATES_OF.items()
)
_AWAITED: Final = """CASE state WHEN 'rerunning' THEN 'expect:' || task_id(root, attempt)
        WHEN 'held' THEN 'hold:' || root ELSE task_id(root, attempt) END"""

FILE: Final = Law(
    "file",
    "The pages of the file are as SQLite wrote them.",
    "SELECT page_count AS pages, page_count * page_size / 1048576 AS size FROM pragma_page_count, pragma_page_size",
    "{pages:,} pages, {size:,} MiB",
    # Without a limit as its argument, which newer versions of SQLite take for a table's name.
    "SELECT 'the file', quick_check FROM pragma_quick_check WHERE quick_check != 'ok'",
    "Stop the daemon and restore the file from a backup; `sqlite3 FILE .recover` saves what can be read.",
)

REFERENCES: Final = Law(
    "references",
    "Whatever a row refers to is stored.",
    "SELECT (SELECT count(*) FROM lineages) AS lineages, (SELECT count(*) FROM outbox) AS rows",
    "lineages {lineages:,}, outbox rows {rows:,}",
    """SELECT "table" || ' ' || coalesce(rowid, '?'), 'refers to a row of ' || parent || ' that is not there'
    FROM pragma_foreign_key_check""",
    DEFECT,
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
        "A message was lost or counted twice. " + DEFECT,
    ),
    Law(
        "stored",
        "What was counted as decided or quarantined is stored or past its retention, and nothing else is stored.",
        f"SELECT (SELECT count(*) FROM envelopes WHERE outcome != '{DRILL_OUTCOME}') AS envelopes,"
        " (SELECT count(*) FROM quarantine) AS quarantined,"
        f" (SELECT count(*) FROM conflicts) AS conflicts, envelopes + quarantined AS removed FROM (SELECT {GONE})",
        "envelopes {envelopes:,}, quarantined {quarantined:,}, conflicting bodies {conflicts:,}, removed {removed:,}",
        f"""WITH counted AS (SELECT {_COUNTERS}), gone AS (SELECT {GONE})
        SELECT name, counted || ' counted, ' || stored || ' stored or removed' FROM (
            SELECT 'decided' AS name, decided AS counted, (
                SELECT count(*) FROM envelopes WHERE outcome != '{DRILL_OUTCOME}') + gone.envelopes AS stored
                FROM counted, gone
            UNION ALL SELECT 'quarantined', counted.quarantined,
                (SELECT count(*) FROM quarantine) + gone.quarantined FROM counted, gone
            UNION ALL SELECT 'conflicts', conflicts, (SELECT count(*) FROM conflicts) FROM counted
        ) WHERE stored > counted OR (stored < counted AND name != 'conflicts')""",  # the same body may come again
        "Rows were deleted or added by hand, or the file was restored in part. " + DEFECT,
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
        "Nothing will happen about these by itself. " + DEFECT,
    ),
    Law(
        "failures",
        "failures = " + " + ".join(ACCOUNTS) + " + removed",
        f"SELECT (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'failures') AS failures,"
        f" (SELECT failures FROM (SELECT {GONE})) AS removed, {_ACCOUNTS} FROM lineages",
        "failures {failures:,} = " + " + ".join(f"{word} {{{word}:,}}" for word in (*ACCOUNTS, "removed")),
        f"""SELECT 'counters', 'failures ' || counted || ', but ' || stand || ' in some state' FROM (
            SELECT coalesce((SELECT value FROM counters WHERE name = 'failures'), 0) AS counted,
            (SELECT coalesce(sum(failures), 0) FROM lineages WHERE state IN ({texts(ACCOUNTED)}))
                + (SELECT failures FROM (SELECT {GONE})) AS stand)
        WHERE counted != stand""",
        "`triage status` shows the states. " + DEFECT,
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
        LOOK + " " + DEFECT,
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
            OR (sum(counted) > sum(stored) AND (SELECT failures FROM (SELECT {GONE})) = 0)
        UNION ALL
        SELECT 'counters', counted || ' failures are counted by groups, ' || stored || ' are stored or removed' FROM (
            SELECT (SELECT coalesce(sum(count), 0) FROM groups) AS counted,
            (SELECT count(*) FROM envelopes WHERE outcome = 'failed')
                + gone.failures AS stored FROM (SELECT {GONE}) gone WHERE gone.failures > 0)
        WHERE counted != stored""",
        "`triage failures list --group` shows its failures. " + DEFECT,
    ),
)

DRILLS: Final = Law(
    "drills",
    "A drill was ordered, and counts nowhere.",
    f"SELECT count(*) AS drills FROM lineages WHERE root GLOB '{GLOB}'",
    "{drills:,} drills, which count nowhere",
    f"""SELECT root, CASE WHEN failures THEN 'is a drill, and counts as ' || failures || ' failures'
            ELSE 'is a drill that nobody has ordered' END
        FROM lineages WHERE root GLOB '{GLOB}' AND (failures OR root NOT IN (SELECT request_id FROM drills))
    UNION ALL SELECT request_id, 'is the ' || outcome || ' result of ' || coalesce(root, 'nothing') FROM envelopes
        WHERE (outcome = '{DRILL_OUTCOME}') != (coalesce(root, request_id) GLOB '{GLOB}')""",
    DEFECT,
)

ENDS: Final = (
    Law(
        "waiting",
        "Whatever waits has an unfinished outbox row that ends the waiting: nothing is held for ever.",
        f"SELECT count(*) AS waiting FROM lineages WHERE state IN ({texts(WAITING)})",
        "{waiting:,} wait",
        f"""SELECT l.root, l.state || ', re-run ' || l.attempt || ': there is no unfinished outbox row ' || l.key
        FROM (SELECT root, state, attempt, {_AWAITED} AS key FROM lineages WHERE state IN ({texts(WAITING)})) l
        LEFT JOIN outbox o ON o.key = l.key AND o.root = l.root AND o.state IN ({OPEN})
        WHERE o.id IS NULL""",
        "These would wait for ever: look what became of the last re-run in the provider's console. " + LOOK,
    ),
    Law(
        "over",
        "No re-run, deadline or end of a hold is still to come for a failure that does not wait for it.",
        f"SELECT count(*) AS rows FROM outbox WHERE state IN ({OPEN}) AND kind IN ('rerun', 'expect', 'hold')",
        "{rows:,} to come",
        f"""SELECT o.key, o.kind || ' to come for ' || coalesce(l.root, 'nothing')
            || coalesce(', which is ' || l.state || ' after re-run ' || l.attempt, '')
        FROM outbox o LEFT JOIN (SELECT root, state, attempt, {_AWAITED} AS awaited FROM lineages) l ON l.root = o.root
        WHERE o.state IN ({OPEN}) AND o.kind IN ('rerun', 'expect', 'hold')
            AND (l.root IS NULL OR l.state NOT IN ({texts(WAITING)}) OR o.key != l.awaited)""",
        "When it is due it finds that the failure has moved on. " + DEFECT,
    ),
    Law(
        "gates",
        "Whoever waits for a breaker or a budget has an unfinished row that lets it go; who waits at a switch has one.",
        "SELECT count(*) AS waiting, count(DISTINCT function) AS functions FROM outbox"
        f" WHERE kind = 'rerun' AND gate NOT IN ('', '{Gate.PASSED}')",
        "{waiting:,} re-runs of {functions:,} functions wait at a gate",
        f"""SELECT key, 'waits for the ' || gate || ' of ' || function || ', and no unfinished row lets go what waits'
        FROM outbox o WHERE gate IN ({texts(AWAITED)}) AND NOT EXISTS (
            SELECT 1 FROM outbox w WHERE w.key = 'wake:' || o.function AND w.state IN ({OPEN}))
        UNION ALL SELECT key, 'waits at a switch, and nothing is switched off' FROM outbox
        WHERE gate = '{Gate.SWITCH}' AND NOT EXISTS (SELECT 1 FROM switches WHERE on_at IS NULL)""",
        "Each waits until it is given up, and is told then. " + DEFECT,
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
        "Decided and not done. " + LOOK + " " + DEFECT,
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
        "It may have run twice: look in the provider's console. " + DEFECT,
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
        "A result of such a re-run would begin a lineage of its own. " + LOOK + " " + DEFECT,
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
        "Every state, kind, gate, outcome, reason and cause is known; no count or version is below the least there is.",
        "SELECT count(*) AS lineages FROM lineages",
        "lineages {lineages:,}",
        " UNION ALL ".join(
            f"SELECT {name}, '{column} is ' || {column} FROM {table} WHERE {column} NOT IN ({texts(known)})"
            for table, name, column, known in (
                ("lineages", "root", "state", set(State) - {State.NEW}),
                ("outbox", "key", "state", RowState),
                ("alert_groups", "key", "state", GroupState),
                ("outbox", "key", "kind", RowKind),
                ("outbox", "key", "gate", {"", *Gate}),
                ("functions", "function", "breaker", BreakerState),
                ("envelopes", "request_id", "outcome", {*Outcome, DRILL_OUTCOME}),
                ("decisions", "request_id", "reason", set(Reason) - {Reason.DUPLICATE, Reason.CONFLICT}),
                ("alerts", "request_id", "cause", Cause),
                ("deliveries", "key", "result", DELIVERIES),
            )
        )
        + """ UNION ALL
        SELECT root, 'version ' || version || ', attempt ' || attempt || ', by hand ' || manual
            || ', failures ' || failures
        FROM lineages WHERE version < 1 OR attempt < 0 OR manual NOT BETWEEN 0 AND attempt OR failures < 0
        UNION ALL SELECT name, 'counts ' || value FROM counters WHERE value < 0""",
        "The daemon cannot work on such a row. " + DEFECT,
    ),
    Law(
        "leases",
        "A claim is a token with an end not far off, on an unfinished row; a finished row says when it was finished.",
        f"SELECT count(lease_until) AS claimed, count(*) AS rows FROM outbox WHERE state IN ({OPEN})",
        "{claimed:,} of {rows:,} unfinished rows are claimed",
        f"""SELECT key, problem FROM (SELECT key, CASE
            WHEN (token IS NULL) != (lease_until IS NULL) THEN 'has a token or an end of its lease, but not both'
            WHEN state NOT IN ({OPEN}) AND token IS NOT NULL THEN 'is ' || state || ', and still claimed'
            WHEN (settled_at IS NULL) != (state IN ({OPEN})) THEN 'is ' || state || ', and settled at ' ||
                coalesce(settled_at, 'no time')
            WHEN lease_until IS NOT NULL AND attempts < 1 THEN 'is claimed, and was never tried'
            WHEN lease_until > :far THEN 'is claimed until ' || lease_until || ': nobody else takes it before'
            WHEN due_at NOT GLOB :instant OR coalesce(lease_until, due_at) NOT GLOB :instant
                THEN 'is due at ' || due_at || ', which is no instant'
            WHEN NOT json_valid(payload) THEN 'its payload is no JSON' END AS problem FROM outbox)
        WHERE problem IS NOT NULL""",
        "Was the clock of this machine wrong? Otherwise: " + DEFECT,
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
        SELECT 1 FROM outbox o WHERE o.key = 'plan:' || p.hash AND o.state IN ({OPEN}))""",
    "Cancel the plan and make a new one: what has run is left out of it. " + DEFECT,
)

LAWS: Final = (FILE, REFERENCES, *SUMS, DRILLS, *ENDS, *ALERTS, *ONCE, PLANS, *FORMS)
"""All of them, in the order in which they are checked: what others rest upon comes first."""
