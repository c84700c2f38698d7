"""What every store promises about maintenance that comes again: a silence each time, told at its end."""

from datetime import timedelta
from zoneinfo import ZoneInfo

from test_store import HOUR, MINUTE, NOW, arrive, ingest
from test_store_silences import counted, reaction, states, telling

from triage.alerts.delivery import Result
from triage.alerts.maintenance import Maintenance, armed, maintained
from triage.changes import RowKind
from triage.rules.windows import Hours

RULES = telling("ops")
# NOW is 12:00 UTC: from one to two o'clock.
DAILY = Maintenance(
    "daily", {"function": "img-*"}, Hours(frozenset(range(7)), ((13 * 60, 14 * 60),), ZoneInfo("UTC")), "updates"
)


async def work(store, *, until, now):
    got = []
    while (due := await store.next_due()) is not None and due <= until:
        now = max(now, due)
        for row in await store.claim_due(now=now, lease=MINUTE, limit=100):
            if row.kind is RowKind.NOTIFY:
                got.append((row.payload["title"], row.payload["body"]))
            if row.kind is RowKind.MAINTENANCE:
                settle = maintained(row, DAILY, now=now)
                await store.settle(row, lambda _facts, settle=settle: settle, now=now)
            else:
                assert await store.settle(row, reaction(row, now, Result.SENT), now=now)
    return got


def test_each_time_what_matches_is_silenced_counted_and_told_at_the_end(run):
    async def scenario(store):
        await store.arm([armed(DAILY, now=NOW)], now=NOW)
        for day in range(2):
            start = NOW + timedelta(days=day) + HOUR
            await work(store, until=start, now=NOW)
            (view,) = await store.silences()
            assert (view.silence.by, view.silence.ends_at) == ("maintenance daily", start + HOUR)
            # A daemon that starts anew arms it once more.
            await store.arm([armed(DAILY, now=start + MINUTE)], now=start + MINUTE)
            during = start + 10 * MINUTE
            sent = [arrive(f"i-{day}-{each}", function="img-a") for each in range(3)]
            await ingest(store, *sent, arrive(f"p-{day}", function="pay"), rules=RULES, now=during)
            got = await work(store, until=start + HOUR - MINUTE, now=during)
            assert ["pay" in title for title, _ in got] == [True]
            assert (await states(store)).get("silenced", 0) == 3 * (day + 1)
            got = await work(store, until=start + 2 * HOUR, now=start + HOUR - MINUTE)
            ((title, body),) = got
            assert f"silence {day + 1} is over: 3 alerts of 1 group not told" in title
            assert counted(body) == 3
            assert await store.silences() == []

    run(scenario)
