"""The stop file and the signal, on a store in memory and a clock that moves when told."""

import asyncio
from datetime import timedelta

from triage.killswitch import KillSwitch
from triage.reruns.switches import Scope
from triage.testing import ManualClock, MemoryStore


class World:
    def __init__(self, folder):
        self.clock, self.store, self.file = ManualClock(), MemoryStore(), folder / "STOP"
        self.went_on = 0
        self.stop, self.halt = asyncio.Event(), asyncio.Event()

    def switch(self):
        return KillSwitch(store=self.store, path=self.file, clock=self.clock, changed=self.count)

    def count(self):
        self.went_on += 1

    async def second(self):
        """A second passes; the file is looked at in a thread, so not all of its work is done when the clock says so."""
        for _ in range(4):
            await self.clock.asleep()
            await self.clock.advance(timedelta(seconds=0.25))
        await self.clock.asleep()

    async def off(self):
        return [(switch.scope, switch.by, switch.reason) for switch in await self.store.switches()]


def run(folder, scenario):
    async def main():
        world = World(folder)
        task = asyncio.create_task(world.switch().run(world.stop, world.halt))
        await scenario(world)
        world.stop.set()
        await asyncio.wait_for(task, 10)

    asyncio.run(main())


def test_a_file_stops_re_runs_within_a_second_while_it_exists(tmp_path):
    async def scenario(world):
        assert await world.off() == []
        world.file.write_text("incident 42\nmore")
        await world.second()
        assert await world.off() == [(Scope.FILE, "stop file", f"{world.file} exists: incident 42")]
        world.file.unlink()
        await world.second()
        assert await world.off() == []
        assert world.went_on == 1

    run(tmp_path, scenario)


def test_a_signal_stops_re_runs_until_a_person_lets_them_go_on(tmp_path):
    async def scenario(world):
        world.halt.set()
        await world.second()
        assert await world.off() == [(Scope.ALL, "signal", "SIGUSR1")]
        assert not world.halt.is_set()
        await world.second()
        assert len(await world.off()) == 1

    run(tmp_path, scenario)


def test_what_the_file_says_counts_from_the_start(tmp_path):
    async def scenario():
        world = World(tmp_path)
        world.file.touch()
        await world.switch().look()
        assert await world.off() == [(Scope.FILE, "stop file", f"{world.file} exists")]
        await world.switch().look()
        assert len(await world.off()) == 1, "after a restart"
        world.file.unlink()
        await world.switch().look()
        assert await world.off() == []

    asyncio.run(scenario())


def test_a_store_that_fails_is_told_once_and_asked_again(tmp_path, caplog):
    async def scenario(world):
        world.store.unavailable = "locked"
        world.file.touch()
        await world.second()
        await world.second()
        world.store.unavailable = ""
        await world.second()
        assert len(await world.off()) == 1

    run(tmp_path, scenario)
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        "the kill switch cannot be switched while the store fails: locked"
    ]


def test_what_cannot_be_read_stops_too(tmp_path):
    async def scenario(world):
        world.file.mkdir()
        await world.second()
        assert len(await world.off()) == 1

    run(tmp_path, scenario)
