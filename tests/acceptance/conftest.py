"""The long stories of ``survival.py`` begin with the first test of this folder and are looked at by the last ones."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from survival import STORIES


@pytest.fixture(scope="session", autouse=True)
def stories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """Those that were asked for, under way."""
    wanted = {item.callspec.params.get("story") for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(max_workers=len(STORIES)) as pool:
        yield {
            name: pool.submit(story, tmp_path_factory.mktemp(name)) for name, story in STORIES.items() if name in wanted
        }
