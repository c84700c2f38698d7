"""The local queue keeps SMQ's promises: leases, handles, delays, long poll, retention, durability."""

import asyncio
import hashlib
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from triage.clock import SystemClock
from triage.errors import Misconfigured, Permanent, StoreUnavailable
from triage.sources.local import LocalQueue, LocalSource, instant
from triage.sources.queue_tables import Failed, Message, Outgoing, QueueAttributes, Sent, wire_name
from triage.testing import ManualClock

SECOND = timedelta(seconds=1)
ZERO = timedelta(0)


def run(tmp_path: Path, test: Callable[[LocalQueue, Any], Awaitable[None]], *, clock: Any = None, **attributes: int):
    """Run ``test`` on a fresh queue ``q``."""

    async def main() -> None:
        async with asyncio.timeout(30):
            now = clock or ManualClock()
            queues = await LocalQueue.open(tmp_path / "queue.db", clock=now)
            try:
                await queues.create_queue("q", QueueAttributes(**attributes))
                await test(queues, now)
            finally:
                await queues.close()

    asyncio.run(main())


async def send(queues: LocalQueue, *bodies: str, **options: Any) -> list[Sent | Failed]:
    return await queues.send("q", [Outgoing(body.encode(), **options) for body in bodies])


async def receive(queues: LocalQueue, limit: int = 16, wait: timedelta = ZERO) -> list[Message]:
    return await queues.receive("q", limit=limit, wait=wait)


def bodies(messages: list[Message]) -> list[str]:
    return [message.body.decode() for message in messages]


def test_message_is_delivered_as_sent_with_all_its_facts(tmp_path: Path) -> None:
    body = b'\xef\xbb\xbf {"a": "\xc3\xa4"}\r\n\x00\xff'

    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        sent = (await queues.send("q", [Outgoing(body, properties="<UserProperties/>")]))[0]
        await clock.advance(3 * SECOND)
        [first] = await receive(queues)
        assert isinstance(sent, Sent)
        assert (first.body, first.message_id, first.properties) == (body, sent.message_id, "<UserProperties/>")
        assert first.body_md5 == sent.body_md5 == hashlib.md5(body).hexdigest().upper()
        assert instant(first.enqueued_at) == clock.now() - 3 * SECOND
        assert instant(first.first_dequeued_at) == clock.now()
        assert instant(first.visible_at) == clock.now() + 30 * SECOND
        assert (first.dequeue_count, first.priority) == (1, 8)
        await clock.advance(30 * SECOND)
        [second] = await receive(queues)
        assert (second.message_id, second.dequeue_count) == (first.message_id, 2)
        assert second.first_dequeued_at == first.first_dequeued_at

    run(tmp_path, test)


def test_leased_message_is_invisible_until_its_lease_ends(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, "m")
        assert bodies(await receive(queues)) == ["m"]
        await clock.advance(9.999 * SECOND)
        assert await receive(queues) == []
        await clock.advance(0.001 * SECOND)
        assert bodies(await receive(queues)) == ["m"]

    run(tmp_path, test, visibility_timeout=10)


def test_batch_delete_tells_which_handles_were_not_valid(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, "expires")
        [expired] = await receive(queues)
        await clock.advance(30 * SECOND)
        [again] = await receive(queues)
        await send(queues, "good", "other")
        good, other = await receive(queues)
        await queues.create_queue("elsewhere")
        await queues.send("elsewhere", [Outgoing(b"foreign")])
        [foreign] = await queues.receive("elsewhere", limit=1, wait=ZERO)
        identity, receipt = other.receipt_handle.split("-")
        forged = f"{identity}-{receipt[::-1]}"
        wrong = [expired.receipt_handle, foreign.receipt_handle, forged, "", "x", "9" * 40 + "-" + "0" * 32]
        failed = await queues.delete("q", [good.receipt_handle, *wrong])
        assert [(entry.subject, entry.code) for entry in failed] == [
            *((handle, "MessageNotExist") for handle in wrong[:3]),
            *((handle, "ReceiptHandleError") for handle in wrong[3:]),
        ]
        assert await queues.delete("q", [again.receipt_handle, other.receipt_handle]) == []
        assert len(await queues.delete("q", [good.receipt_handle])) == 1
        stats = await queues.stats("q")
        assert (stats.active, stats.inactive, stats.oldest_at) == (0, 0, None)

    run(tmp_path, test)


def test_changed_visibility_counts_from_now_and_invalidates_the_old_handle(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, "m")
        [message] = await receive(queues)
        await clock.advance(20 * SECOND)
        handle, until = await queues.change_visibility("q", message.receipt_handle, 60 * SECOND)
        assert until == clock.now() + 60 * SECOND
        with pytest.raises(Permanent, match="MessageNotExist"):
            await queues.change_visibility("q", message.receipt_handle, 60 * SECOND)
        assert len(await queues.delete("q", [message.receipt_handle])) == 1
        await clock.advance(59 * SECOND)
        assert await receive(queues) == []
        await queues.change_visibility("q", handle, ZERO)
        assert bodies(await receive(queues)) == ["m"]
        with pytest.raises(Permanent, match="ReceiptHandleError"):
            await queues.change_visibility("q", "nonsense", SECOND)
        with pytest.raises(Permanent, match="VisibilityTimeout is 43201"):
            await queues.change_visibility("q", handle, 43_201 * SECOND)

    run(tmp_path, test)


def test_delayed_message_comes_when_due_and_can_be_deleted_before(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        [withdrawn, _] = await send(queues, "withdrawn", "late")
        await send(queues, "prompt", delay=0)
        assert isinstance(withdrawn, Sent)
        stats = await queues.stats("q")
        assert (stats.active, stats.delayed) == (1, 2)
        assert bodies(await receive(queues)) == ["prompt"]
        assert await queues.delete("q", [withdrawn.receipt_handle]) == []
        await clock.advance(60 * SECOND)
        assert "late" in bodies(await receive(queues))

    run(tmp_path, test, delay_seconds=60, visibility_timeout=100)


def test_priority_first_then_oldest_and_limit_is_kept(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, "c", "d")
        await send(queues, "z", priority=16)
        await send(queues, "a", "b", priority=1)
        assert bodies(await queues.peek("q", limit=16)) == ["a", "b", "c", "d", "z"]
        assert bodies(await receive(queues, limit=3)) == ["a", "b", "c"]
        assert bodies(await receive(queues, limit=3)) == ["d", "z"]

    run(tmp_path, test)


def test_peek_leases_nothing_and_gives_no_handle(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, "m")
        [seen] = await queues.peek("q")
        assert (seen.receipt_handle, seen.dequeue_count, seen.first_dequeued_at) == ("", 0, 0)
        assert bodies(await receive(queues)) == ["m"]
        assert await queues.peek("q") == []

    run(tmp_path, test)


def test_messages_outlive_nothing_beyond_the_retention_period(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, "old", "leased")
        await receive(queues, limit=1)
        await clock.advance(30 * SECOND)
        await send(queues, "young")
        await clock.advance(30 * SECOND)
        assert bodies(await queues.peek("q", limit=9)) == ["young"]
        assert (await queues.stats("q")).oldest_at is not None
        assert bodies(await receive(queues)) == ["young"]

    run(tmp_path, test, message_retention_period=60)


def test_refused_messages_do_not_stop_the_rest_of_the_batch(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        answers = await queues.send(
            "q",
            [
                Outgoing(b"x" * 1025),
                Outgoing(b"fits"),
                Outgoing(b"m", delay=604_801),
                Outgoing(b"m", priority=0),
                Outgoing(b"m", priority=17),
            ],
        )
        assert [isinstance(answer, Sent) for answer in answers] == [False, True, False, False, False]
        assert {answer.code for answer in answers if isinstance(answer, Failed)} == {"InvalidArgument"}
        assert bodies(await receive(queues)) == ["fits"]

    run(tmp_path, test, maximum_message_size=1024)


def test_purge_takes_leased_messages_too_and_leaves_other_queues(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await queues.create_queue("other")
        await queues.send("other", [Outgoing(b"stays")])
        await send(queues, "a", "b", "c")
        await receive(queues, limit=1)
        assert await queues.purge("q") == 3
        await clock.advance(60 * SECOND)
        assert await receive(queues) == []
        assert (await queues.stats("other")).active == 1

    run(tmp_path, test)


def test_queues_are_made_changed_listed_and_deleted(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        assert await queues.create_queue("q") is False
        with pytest.raises(Permanent, match="QueueAlreadyExist"):
            await queues.create_queue("q", QueueAttributes(delay_seconds=1))
        await clock.advance(SECOND)
        await queues.set_attributes("q", {"delay_seconds": 1})
        info = await queues.get_queue("q")
        assert info.attributes == QueueAttributes(delay_seconds=1)
        assert info.modified_at - info.created_at == 1000
        for name in ("qa", "qb", "r"):
            await queues.create_queue(name)
        assert [queue.name for queue in await queues.list_queues(prefix="q", limit=2)] == ["q", "qa"]
        assert [queue.name for queue in await queues.list_queues(prefix="q", after="qa")] == ["qb"]
        await send(queues, "m")
        await queues.delete_queue("q")
        await queues.delete_queue("q")
        with pytest.raises(Misconfigured, match="QueueNotExist"):
            await receive(queues)
        assert await queues.create_queue("q")
        assert (await queues.stats("q")).delayed == 0

    run(tmp_path, test)


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "\u00e4", "a" * 129])
def test_queue_names_are_checked(tmp_path: Path, name: str) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        with pytest.raises(Permanent, match="InvalidQueueName"):
            await queues.create_queue(name)

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("attribute", "low", "high"),
    [
        ("visibility_timeout", 1, 43_200),
        ("maximum_message_size", 1024, 65_536),
        ("message_retention_period", 60, 604_800),
        ("delay_seconds", 0, 604_800),
        ("polling_wait_seconds", 0, 30),
    ],
)
def test_attribute_ranges_are_checked(attribute: str, low: int, high: int) -> None:
    QueueAttributes(**{attribute: low})
    QueueAttributes(**{attribute: high})
    for wrong in (low - 1, high + 1):
        with pytest.raises(Permanent, match=f"{wire_name(attribute)} is {wrong}, must be between {low} and {high}"):
            QueueAttributes(**{attribute: wrong})


def test_long_poll_is_woken_by_a_send(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        waiting = asyncio.create_task(receive(queues, wait=30 * SECOND))
        await clock.asleep(1)
        await send(queues, "m")
        assert bodies(await waiting) == ["m"]

    run(tmp_path, test)


def test_long_poll_ends_empty_at_its_time_and_not_before(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        waiting = asyncio.create_task(receive(queues, wait=30 * SECOND))
        await clock.asleep(1)
        assert [due - clock.now() for due in clock.timers] == [30 * SECOND]
        await clock.advance(30 * SECOND)
        assert await waiting == []

    run(tmp_path, test)


def test_queue_says_how_long_to_wait_when_the_request_does_not(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        waiting = asyncio.create_task(queues.receive("q", limit=1))
        await clock.asleep(1)
        assert [due - clock.now() for due in clock.timers] == [7 * SECOND]
        await clock.advance(7 * SECOND)
        assert await waiting == []

    run(tmp_path, test, polling_wait_seconds=7)


@pytest.mark.parametrize("kind", ["lease", "delay"])
def test_long_poll_sleeps_exactly_until_the_next_message_is_visible(tmp_path: Path, kind: str) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, "m", delay=10 if kind == "delay" else 0)
        if kind == "lease":
            await receive(queues)
        waiting = asyncio.create_task(receive(queues, wait=30 * SECOND))
        await clock.asleep(1)
        assert [due - clock.now() for due in clock.timers] == [10 * SECOND]
        await clock.advance(10 * SECOND)
        assert bodies(await waiting) == ["m"]

    run(tmp_path, test, visibility_timeout=10)


def test_long_poll_is_woken_when_a_message_is_given_back(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, "m")
        [message] = await receive(queues)
        waiting = asyncio.create_task(receive(queues, wait=20 * SECOND))
        await clock.asleep(1)
        await queues.change_visibility("q", message.receipt_handle, ZERO)
        assert bodies(await waiting) == ["m"]

    run(tmp_path, test)


def test_waiting_receivers_are_served_in_order_and_none_is_forgotten(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        served: list[int] = []

        async def wait_for_one(number: int) -> None:
            [_] = await receive(queues, limit=1, wait=30 * SECOND)
            served.append(number)

        receivers = []
        for number in range(8):
            receivers.append(asyncio.create_task(wait_for_one(number)))
            await clock.asleep(number + 1)
        receivers.pop(3).cancel()
        await send(queues, "one")
        await asyncio.wait(receivers, return_when=asyncio.FIRST_COMPLETED)
        await send(queues, *"abcdef")
        await asyncio.gather(*receivers)
        assert served == [0, 1, 2, 4, 5, 6, 7]

    run(tmp_path, test)


def test_deleting_the_queue_ends_the_waiting_with_an_error(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        waiting = [asyncio.create_task(receive(queues, wait=30 * SECOND)) for _ in range(3)]
        await clock.asleep(3)
        await queues.delete_queue("q")
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [Misconfigured] * 3

    run(tmp_path, test)


def test_closing_ends_the_waiting(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        waiting = [asyncio.create_task(receive(queues, wait=30 * SECOND)) for _ in range(3)]
        await clock.asleep(3)
        await queues.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailable] * 3

    run(tmp_path, test)


OTHER_PROCESS = """
import asyncio, os, sys
from pathlib import Path
from triage.clock import SystemClock
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing

async def main():
    queues = await LocalQueue.open(Path(sys.argv[1]), clock=SystemClock())
    for number in range(int(sys.argv[2])):
        await queues.send("q", [Outgoing(f"{sys.argv[3]}{number}".encode())])
    os._exit(9)  # as if killed: whatever was answered must be there

asyncio.run(main())
"""


async def other_process(queues: LocalQueue, count: int, prefix: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_PROCESS, str(queues.path), str(count), prefix, cwd=Path(__file__).parents[2]
    )
    assert await process.wait() == 9


def test_long_poll_is_woken_by_another_process(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: SystemClock) -> None:
        waiting = asyncio.create_task(receive(queues, wait=600 * SECOND))  # longer than the test may take
        await other_process(queues, 1, "m")
        assert bodies(await waiting) == ["m0"]

    run(tmp_path, test, clock=SystemClock())


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: SystemClock) -> None:
        async def send_here() -> None:
            for number in range(100):
                await send(queues, f"c{number}")

        await asyncio.gather(other_process(queues, 100, "a"), other_process(queues, 100, "b"), send_here())
        got = bodies(await receive(queues, limit=1000))
        assert sorted(got) == sorted(f"{prefix}{number}" for prefix in "abc" for number in range(100))

    run(tmp_path, test, clock=SystemClock())


def test_messages_and_leases_survive_reopening(tmp_path: Path) -> None:
    async def main() -> None:
        clock, path = ManualClock(), tmp_path / "state" / "queue.db"
        queues = await LocalQueue.open(path, clock=clock)
        await queues.create_queue("q", QueueAttributes(visibility_timeout=10))
        await send(queues, "leased", "waits")
        [leased] = await receive(queues, limit=1)
        await queues.close()
        await queues.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await receive(queues)
        queues = await LocalQueue.open(path, clock=clock)
        assert bodies(await receive(queues)) == ["waits"]
        assert await queues.delete("q", [leased.receipt_handle]) == []
        await queues.close()

    asyncio.run(main())


def test_concurrent_receivers_share_the_messages_without_overlap(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, *(str(number) for number in range(500)))
        batches = await asyncio.gather(*(receive(queues, limit=16) for _ in range(40)))
        got = [body for batch in batches for body in bodies(batch)]
        assert sorted(got, key=int) == [str(number) for number in range(500)]

    run(tmp_path, test)


def open_fails(path: Path) -> str:
    async def main() -> str:
        with pytest.raises(StoreUnavailable) as error:
            await LocalQueue.open(path, clock=SystemClock())
        return str(error.value)

    return asyncio.run(main())


def test_wrong_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    text, foreign, file = tmp_path / "notes.txt", tmp_path / "foreign.db", tmp_path / "file"
    text.write_text("not a database, and long enough to have a header" * 20)
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    file.touch()
    assert "not an SQLite database; move it away or give another path" in open_fails(text)
    assert "another program's SQLite database" in open_fails(foreign)
    assert f"File exists ({file})" in open_fails(file / "queue.db")
    assert "give a path in a directory that you may write to" in open_fails(Path("/proc/queue.db"))
    assert text.read_text().startswith("not a database")


def test_queue_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    async def test(queues: LocalQueue, clock: ManualClock) -> None:
        await send(queues, "m")
        files = await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
        assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {
            f"queue.db{suffix}": "0o600" for suffix in ("", "-wal", "-shm", ".lock")
        }

    old = os.umask(0)
    try:
        run(tmp_path, test)
    finally:
        os.umask(old)


def test_source_receives_extends_and_acknowledges(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        queues = await LocalQueue.open(tmp_path / "queue.db", clock=clock)
        source = LocalSource(queues, queue="results", lease=20 * SECOND)
        assert await source.receive(limit=16, wait=ZERO) == []
        await queues.send("results", [Outgoing(b"a"), Outgoing(b"b"), Outgoing(b"c")])
        first, second, third = await source.receive(limit=16, wait=ZERO)
        assert (first.body, first.receive_count, first.enqueued_at) == (b"a", 1, clock.now())
        assert first.lease_until == clock.now() + source.lease == clock.now() + 20 * SECOND
        assert first.body_md5 == hashlib.md5(b"a").hexdigest().upper()
        await clock.advance(19 * SECOND)
        old = first.receipt_handle
        assert await source.extend(first, 20 * SECOND)
        assert (first.receipt_handle != old, first.lease_until) == (True, clock.now() + 20 * SECOND)
        assert await source.ack([first, second]) == []
        await clock.advance(SECOND)
        assert await source.extend(third, 20 * SECOND) is False
        assert await source.ack([third]) == [third]
        assert [delivery.receive_count for delivery in await source.receive(limit=1, wait=ZERO)] == [2]
        await source.close()
        await source.close()

    asyncio.run(main())
