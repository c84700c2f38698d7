"""How often rules have applied, as the SQLite store tells it. A job for its reader thread."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Final

from sqlite_utils import Database

from triage.stores import RuleHits, drills, records
from triage.stores.drills import NO_DRILL
from triage.stores.records import instant


def rule_hits(connection: sqlite3.Connection, since: datetime | None) -> list[RuleHits]:
    """How often each rule has applied."""
    db = Database(connection, recursive_triggers=False, execute_plugins=False)
    own = {"since": "" if since is None else instant(since)}
    return [records.rule_hits(row) for row in db.query(_RULE_HITS, own)]


# A shadow's effects are written as those of a decision are, so equal texts are equal effects.
_RULE_HITS: Final = f"""
    WITH drilled AS ({drills.ENVELOPES})
    SELECT rule_id, sum(hits) AS hits, max(last_hit) AS last_hit, sum(shadow_hits) AS shadow_hits,
        max(last_shadow_hit) AS last_shadow_hit, sum(disagreed) AS disagreed, sum(alerts) AS alerts,
        sum(silenced) AS silenced
    FROM (
        SELECT rule_id, count(*) AS hits, max(decided_at) AS last_hit, 0 AS shadow_hits, NULL AS last_shadow_hit,
            0 AS disagreed, 0 AS alerts, 0 AS silenced
        FROM decisions WHERE decided_at >= :since AND rule_id != '' AND id NOT IN drilled GROUP BY rule_id
        UNION ALL
        SELECT also.value, count(*), max(decided_at), 0, NULL, 0, 0, 0
        FROM decisions, json_each(decisions.also) AS also
        WHERE decided_at >= :since AND decisions.also != '[]' AND decisions.id NOT IN drilled GROUP BY also.value
        UNION ALL
        SELECT json_extract(shadow.value, '$.rule'), 0, NULL, count(*), max(decided_at),
            sum(json_extract(shadow.value, '$.effects') != effects), 0, 0
        FROM decisions, json_each(decisions.shadow) AS shadow
        WHERE decided_at >= :since AND decisions.shadow != '[]' AND decisions.id NOT IN drilled GROUP BY 1
        UNION ALL
        SELECT k.labels ->> '$.rule', 0, NULL, 0, NULL, 0, a.alerts, a.silenced
        FROM (
            SELECT kind, count(*) AS alerts, count(silence) AS silenced
            FROM alerts WHERE at >= :since AND flush IS NOT NULL AND group_key {NO_DRILL} GROUP BY kind
        ) a JOIN alert_kinds k ON k.key = a.kind
    ) GROUP BY rule_id HAVING sum(hits) + sum(shadow_hits) > 0 ORDER BY rule_id"""
