"""The stores under test."""

import asyncio

import pytest
from stores import STORES


@pytest.fixture(params=STORES.values(), ids=STORES)
def run(request, tmp_path):
    """Run a scenario on a fresh store."""

    def runner(scenario):
        async def main():
            async with request.param(tmp_path) as store:
                return await scenario(store)

        return asyncio.run(main())

    return runner
