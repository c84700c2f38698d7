"""Settings are read again: what can change does, what cannot is named, and what is wrong changes nothing."""

import asyncio
from pathlib import Path

from triage.configuration import LIVE, Configuration, needs_restart
from triage.errors import ConfigInvalid, Problem
from triage.settings import load_settings


def settings(folder: Path, text: str = ""):
    file = folder / "triage.toml"
    file.write_text(f'state_dir = "state"\n{text}')
    return load_settings(file, environ={"HOME": str(folder)})


BEFORE = (
    '[receivers.ops]\nurls = "json://old-token-of-ops@h/"\n[log]\nlevel = "info"\n[web]\nlisten = "127.0.0.1:8020"\n'
)
AFTER = (
    '[[sources]]\ntype = "local"\nqueue = "other"\n[receivers.ops]\nurls = "json://new-token-of-ops@h/"\n'
    '[log]\nlevel = "debug"\n[web]\nlisten = "127.0.0.1:8021"\n[consumer]\ngrace = "5s"\n[[labels]]\nfunction = "*"\nset = {tier = "1"}\n'
)


def reloaded(configuration, *, refuse=None):
    taken = []

    async def take(new):
        if refuse:
            raise refuse
        taken.append(new)

    asyncio.run(configuration.reload(take))
    return taken


def test_what_differs_is_named_to_the_setting(tmp_path):
    before, after = settings(tmp_path, BEFORE), settings(tmp_path, AFTER)
    assert needs_restart(before, before) == []
    assert needs_restart(before, after) == [
        "sources", "receivers", "labels", "consumer.grace", "web.listen", "log.level",
    ]  # fmt: skip


def test_what_can_change_does_and_the_rest_is_told(tmp_path, caplog):
    caplog.set_level("INFO")
    before, after = settings(tmp_path, BEFORE), settings(tmp_path, AFTER)
    configuration = Configuration(before, read=lambda: after)
    assert reloaded(configuration) == [after]
    now = configuration.settings
    assert (now.log.level, now.labels, now.receivers) == ("debug", after.labels, after.receivers)
    assert (now.web.listen, now.sources, now.consumer.grace) == (
        before.web.listen,
        before.sources,
        before.consumer.grace,
    )
    assert [record.getMessage() for record in caplog.records] == [
        "settings read again; changed: receivers, labels, log",
        "these settings were changed and come into force at a restart: sources, consumer.grace, web.listen",
    ]
    caplog.clear()
    reloaded(configuration)
    assert caplog.messages[0] == "settings read again; changed: nothing"
    assert configuration.redact("old-token-of-ops new-token-of-ops") == "*** ***", "what was secret stays so"


def test_settings_that_cannot_be_used_change_nothing(tmp_path, caplog):
    before = settings(tmp_path, BEFORE)
    configuration = Configuration(before, read=lambda: settings(tmp_path, "[queu]\nname = 'x'\n"))
    assert reloaded(configuration) == []
    assert configuration.settings is before
    assert len(configuration.problems) == 1
    assert "queu: no such setting (did you mean 'queue'?)" in caplog.text
    refused = ConfigInvalid([Problem("receivers.ops.urls[0]", 0, 0, "not a target that apprise understands")])
    configuration = Configuration(before, read=lambda: settings(tmp_path, AFTER))
    assert reloaded(configuration, refuse=refused) == []
    assert configuration.settings is before
    assert configuration.problems == refused.problems
    reloaded(configuration)
    assert configuration.problems == ()


def test_the_reference_tells_what_a_reload_changes():
    text = (Path(__file__).parents[2] / "docs/reference/configuration.md").read_text()
    section = text.partition("\n## What a reload changes\n")[2].partition("\n## ")[0]
    assert [name for name in LIVE if f"`[{name}]`" in section or f"`[[{name}]]`" in section] == list(LIVE)
