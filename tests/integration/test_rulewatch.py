"""Changes of rule files on a real file system are noticed, whichever way they are made, and nothing else is."""

import asyncio
import shutil
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from triage.clock import SystemClock
from triage.progress import Progress
from triage.rulewatch import signature, watch_rules

IN_TIME = 2.0
"""Seconds in which an edit has to be noticed."""

QUIET = timedelta(milliseconds=50)


class Watched:
    """Rules that are watched; `noticed` waits for the next change."""

    def __init__(self, path):
        self.path = path
        self._changes = asyncio.Queue()
        self.changed = lambda: self._changes.put_nowait(signature(path))

    async def noticed(self, *, within=20 * IN_TIME):
        async with asyncio.timeout(within):
            found = await self._changes.get()
        assert found == signature(self.path), "it was told before the files had come to rest"
        assert self._changes.empty()


@asynccontextmanager
async def watching(path):
    watched, stop = Watched(path), asyncio.Event()
    task = asyncio.create_task(
        watch_rules(
            path,
            seen=signature(path),
            changed=watched.changed,
            stop=stop,
            clock=SystemClock(),
            progress=Progress(),
            quiet=QUIET,
        )
    )
    yield watched
    stop.set()
    await task
    assert watched._changes.empty(), "something was noticed that is no change of the rules"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "a.yaml").write_text("a")
    return folder


def write(folder):
    (folder / "a.yaml").write_text("b")


def rename_over(folder):
    (folder / ".a.yaml.new").write_text("c")
    (folder / ".a.yaml.new").replace(folder / "a.yaml")


def rename_over_with_the_old_times(folder):
    shutil.copy2(folder / "a.yaml", folder / ".new")
    (folder / ".new").replace(folder / "a.yaml")


def write_in_pieces(folder):
    with (folder / "a.yaml").open("w") as stream:
        for part in ("version", ": 1\n", "rules: []\n"):
            stream.write(part)
            stream.flush()


def add(folder):
    (folder / "b.yml").write_text("b")


def add_a_case(folder):
    (folder / "a.test.yaml").write_text("cases: []")


def delete(folder):
    (folder / "a.yaml").unlink()


def delete_the_folder(folder):
    shutil.rmtree(folder)


def swap_the_folder(folder):
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    folder.rename(folder.with_name("before"))
    other.rename(folder)


def forbid(folder):
    (folder / "a.yaml").chmod(0)


EDITS = [
    write,
    rename_over,
    rename_over_with_the_old_times,
    write_in_pieces,
    add,
    add_a_case,
    delete,
    delete_the_folder,
    swap_the_folder,
    forbid,
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_is_noticed_once_and_in_time(folder, edit):
    async def main():
        async with watching(folder) as watched:
            edit(folder)
            await watched.noticed(within=IN_TIME)

    asyncio.run(main())


def test_every_edit_is_noticed_however_the_folder_fares(folder):
    """The folder goes, comes back as another one, is a link, and the link is turned to yet another one."""

    async def main():
        async with watching(folder) as watched:
            shutil.rmtree(folder)
            await watched.noticed()
            folder.mkdir()
            write(folder)
            await watched.noticed()
            rename_over(folder)
            await watched.noticed()
            folder.rename(folder.with_name("release-1"))
            folder.symlink_to("release-1")  # the same rules at the same place
            shutil.copytree(folder.with_name("release-1"), folder.with_name("release-2"))
            folder.with_name("link").symlink_to("release-2")
            folder.with_name("link").replace(folder)
            await watched.noticed()
            write(folder.with_name("release-2"))
            await watched.noticed()

    asyncio.run(main())


def test_a_config_map_is_swapped_as_a_whole(tmp_path):
    """As the kubelet does it: files are links into ``..data``, a link to a folder of this version."""

    def publish(version):
        data = tmp_path / f"..version_{version}"
        data.mkdir()
        for name in ("a.yaml", "b.yaml"):
            (data / name).write_text(f"{name} {version}")
        (tmp_path / "..data_tmp").symlink_to(data.name)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    async def main():
        publish(1)
        for name in ("a.yaml", "b.yaml"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        async with watching(tmp_path) as watched:
            for version in (2, 3):
                publish(version)
                shutil.rmtree(tmp_path / f"..version_{version - 1}")
                await watched.noticed()

    asyncio.run(main())


@pytest.mark.parametrize("name", ["rules.yaml", "rules.conf"])
def test_a_single_file_is_noticed_also_when_it_is_replaced_or_comes_back(tmp_path, name):
    async def main():
        path = tmp_path / name
        path.write_text("a")
        async with watching(path) as watched:
            path.write_text("b")
            await watched.noticed()
            (tmp_path / "new").write_text("c")
            (tmp_path / "new").replace(path)
            await watched.noticed()
            path.unlink()
            await watched.noticed()
            path.write_text("d")
            await watched.noticed()

    asyncio.run(main())


def test_what_editors_leave_beside_the_rules_is_no_change(folder):
    async def main():
        async with watching(folder) as watched:
            for name in (".a.yaml.swp", "a.yaml~", "#a.yaml#", "4913", "notes.md", ".#b.yaml"):
                (folder / name).write_text("x")
            (folder / ".git").mkdir()
            write(folder)  # what comes first is this
            await watched.noticed()

    asyncio.run(main())


def test_rules_that_are_not_there_yet_are_noticed_when_they_come(tmp_path):
    path = tmp_path / "not" / "yet" / "rules"

    async def main():
        async with watching(path) as watched:
            path.mkdir(parents=True)
            (path / "a.yaml").write_text("a")
            await watched.noticed()

    asyncio.run(main())


def test_without_notices_of_the_system_the_files_are_looked_at(folder):
    """A write to a file elsewhere, to which a link in the folder leads, gives no notice in the folder."""
    elsewhere = folder.with_name("elsewhere.yaml")
    elsewhere.write_text("a")
    (folder / "b.yaml").symlink_to(elsewhere)

    async def main():
        async with watching(folder) as watched:
            elsewhere.write_text("bc")
            await watched.noticed()

    asyncio.run(main())
