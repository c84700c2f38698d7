"""The laws of alerts: whoever must hear of a failure hears of it, and what is counted adds up."""

from __future__ import annotations

from typing import Final

from triage import incident
from triage.stores.drills import NO_DRILL
from triage.stores.law import DEFECT, GONE, LOOK, OPEN, Law, texts

_NOTIFY: Final = "o.key >= 'notify:' AND o.key < 'notify;'"  # by the index of keys
_TELLS: Final = f"""
    SELECT o.group_key, json_extract(o.payload, '$.flush') FROM outbox o
    WHERE {_NOTIFY} AND o.group_key IS NOT NULL AND (%s)
    UNION ALL SELECT t.value ->> '$[0]', t.value ->> '$[1]' FROM outbox o, json_each(o.payload, '$.told') t
    WHERE {_NOTIFY} AND (%s)"""
"""Of which groups notifications tell, and the number of the message: one, or those of a storm or a cause."""


_TAKEN: Final = "o.state = 'done' OR json_array_length(o.payload, '$.sent') > 0"


def _tells(which: str) -> str:
    return _TELLS % (which, which)


ALERTS: Final = (
    Law(
        "alerting",
        "Whatever is being told has an alert that waits, or is being delivered, or could not be.",
        "SELECT count(*) AS alerting FROM lineages WHERE state = 'alerting'",
        "{alerting:,} are being told",
        f"""SELECT root, 'is alerting, but no alert of it is under way' FROM lineages
        WHERE state = 'alerting' AND root NOT IN (
            SELECT root FROM alerts WHERE root IS NOT NULL AND (flush IS NULL OR (group_key, flush) IN (
                {_tells("o.state != 'done'")})))""",
        "Nobody will be told of these: tell them yourself. " + LOOK,
    ),
    Law(
        "alerted",
        "A receiver has taken an alert of everything that counts as alerted.",
        "SELECT count(*) AS alerted FROM lineages WHERE state = 'alerted'",
        "{alerted:,} were told",
        f"""SELECT root, 'counts as alerted, but no receiver has taken an alert of it' FROM lineages
        WHERE state = 'alerted' AND root NOT IN (
            SELECT root FROM alerts WHERE root IS NOT NULL AND (group_key, flush) IN (
                {_tells(_TAKEN)}))""",
        "Nobody was told of these: tell them yourself. " + LOOK,
    ),
    Law(
        "flush",
        "Alerts that wait for their group have an unfinished row that flushes it.",
        "SELECT count(*) AS waiting FROM alerts WHERE flush IS NULL",
        "{waiting:,} alerts wait",
        f"""SELECT g.group_key, g.waiting || ' alerts wait, and no unfinished outbox row is flush:' || g.group_key
        FROM (SELECT group_key, count(*) AS waiting FROM alerts WHERE flush IS NULL GROUP BY group_key) g
        LEFT JOIN outbox o ON o.key = 'flush:' || g.group_key AND o.state IN ({OPEN}) WHERE o.id IS NULL""",
        "The next failure of the group flushes it. " + DEFECT,
    ),
    Law(
        "notified",
        "Every message about a group made a notification for each of its receivers, unless a silence kept it from one.",
        "SELECT coalesce(sum(flushes), 0) AS flushes, count(*) AS groups FROM alert_groups",
        "{flushes:,} messages about {groups:,} groups",
        """SELECT f.group_key, 'message ' || f.flush || ' made no notification for ' || r.value
        FROM (SELECT DISTINCT group_key, flush FROM alerts WHERE flush IS NOT NULL) f
        JOIN alert_groups g ON g.key = f.group_key AND f.flush <= g.flushes, json_each(g.receivers) r
        WHERE 'notify:' || f.group_key || ':' || f.flush || ':' || r.value NOT IN (SELECT key FROM outbox)
            AND (f.group_key, r.value) NOT IN (SELECT group_key, receiver FROM silenced)
            AND (f.group_key, f.flush, r.value) NOT IN (
                SELECT t.value ->> '$[0]', t.value ->> '$[1]', o.payload ->> '$.receiver'
                FROM outbox o, json_each(o.payload, '$.told') t
                WHERE (o.key >= 'notify:storm:' AND o.key < 'notify:storm;')
                    OR (o.key >= 'notify:inhibition:' AND o.key < 'notify:inhibition;'))""",
        "This receiver was not told. " + DEFECT,
    ),
    Law(
        "suppressed",
        "Whatever counts as suppressed has an alert that a later message counts, or one that is being delivered.",
        "SELECT count(*) AS suppressed FROM lineages WHERE state = 'suppressed'",
        "{suppressed:,} are suppressed",
        f"""SELECT root, 'counts as suppressed, but no message to come counts it' FROM lineages
        WHERE state = 'suppressed' AND root NOT IN (
            SELECT a.root FROM alerts a JOIN alert_groups g ON g.key = a.group_key
            WHERE a.root IS NOT NULL AND a.flush IS NOT NULL AND (a.flush > g.flushes OR (a.group_key, a.flush) IN (
                {_tells("o.state != 'done'")})))""",
        "Nobody will be told of these: tell them yourself. " + LOOK,
    ),
    Law(
        "incidents",
        "An alert group that fails, or is quiet, has an unfinished row that looks at it again: each comes to an end.",
        f"SELECT count(*) AS open FROM alert_groups WHERE state IN ({texts(incident.OPEN)})",
        "{open:,} are open",
        f"""SELECT g.key, 'is ' || g.state || ', and no unfinished outbox row is flush:' || g.key
        FROM alert_groups g LEFT JOIN outbox o ON o.key = 'flush:' || g.key AND o.state IN ({OPEN})
        WHERE g.state IN ({texts(incident.OPEN)}) AND o.id IS NULL""",
        "Nobody hears when this group is resolved; its next failure goes on with it. " + DEFECT,
    ),
    Law(
        "told",
        "An alert group counts its messages, and its alerts: those that they told, those that were only counted so far,"
        " and those that silences kept quiet.",
        "SELECT coalesce(sum(told), 0) AS told, coalesce(sum(suppressed), 0) AS suppressed,"
        f" coalesce(sum(silenced), 0) AS silenced FROM alert_groups WHERE key {NO_DRILL}",
        "{told:,} alerts were told, {suppressed:,} only counted so far, {silenced:,} silenced",
        f"""SELECT g.key, 'counts ' || g.told || ' alerts told, ' || g.suppressed || ' only counted, ' || g.silenced
            || ' silenced, stored are ' || coalesce(a.told, 0) || ', ' || coalesce(a.counted, 0) || ' and '
            || coalesce(a.silenced, 0)
        FROM alert_groups g LEFT JOIN (
            SELECT group_key, count(*) FILTER (WHERE silence IS NULL AND flush <= flushes) AS told,
                count(*) FILTER (WHERE silence IS NULL AND flush > flushes) AS counted,
                count(silence) AS silenced, max(flush) AS flush
            FROM alerts JOIN alert_groups ON key = group_key WHERE flush IS NOT NULL GROUP BY group_key
        ) a ON a.group_key = g.key
        WHERE g.told < coalesce(a.told, 0) OR g.suppressed < coalesce(a.counted, 0)
            OR g.silenced < coalesce(a.silenced, 0) OR g.flushes + 1 < coalesce(a.flush, 0)
        UNION ALL
        SELECT 'counters', counted || ' alerts are counted as looked at, ' || stored || ' are stored or removed' FROM (
            SELECT (SELECT coalesce(sum(told + suppressed + silenced), 0) FROM alert_groups) AS counted,
            (SELECT count(*) FROM alerts WHERE flush IS NOT NULL) + (SELECT alerts FROM (SELECT {GONE})) AS stored)
        WHERE counted != stored""",
        "The counts in messages of this group are wrong. " + DEFECT,
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
        WHERE s.ended_at IS NULL AND 'silence:' || s.id NOT IN (SELECT key FROM outbox WHERE state IN ({OPEN}))
        UNION ALL
        SELECT 'silence ' || s.id, 'has ended, and did not tell ' || t.receiver || ' what it kept quiet'
        FROM silences s JOIN silenced t ON t.silence = s.id WHERE s.ended_at IS NOT NULL
            AND 'notify:silence:' || s.id || ':over:' || t.receiver NOT IN (SELECT key FROM outbox)""",
        "Nobody will be told of these: `triage silence show` tells what they are. " + DEFECT,
    ),
)
