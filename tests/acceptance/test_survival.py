"""The daemon lives through kills, lost answers and refusals: nothing is lost, nothing runs twice."""

import pytest
from survival import KILLS, STORIES


@pytest.mark.timeout(240 + 5 * KILLS)
@pytest.mark.parametrize("story", STORIES)
def test_survives(stories, story):
    stories[story].result()
