"""``triage alerts preview``: what a message says, without sending it."""

import asyncio
import json
from datetime import timedelta

import make
import pytest
from click.testing import CliRunner
from test_lineage_cli import act, ingest

from triage.alerts.grouping import flush
from triage.changes import Changes, RowKind, Settle
from triage.cli import cli
from triage.rules.model import AlertPolicy
from triage.stores.sqlite import SqliteStore

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NOW = make.NOW
TELL = make.rules(make.rule("tell", alert=AlertPolicy(group_wait=timedelta(0), group_by=("function",))))


async def fill(store):
    """Two failures are told; a third one of another function waits."""
    await ingest(store, make.envelope("1-a"), make.envelope("1-b", error="boom \x1b[2J"), rules=TELL, now=NOW)
    rows = []

    def told(_row, facts):
        settle = flush(facts, now=NOW)
        rows.extend(settle.changes.rows)
        return settle

    await act(store, RowKind.FLUSH, told, now=NOW)
    sent = lambda row, _facts: Settle.done(delivery="sent", changes=Changes(told=((row.group, 1),)))  # noqa: E731
    await act(store, RowKind.NOTIFY, sent, now=NOW)
    await ingest(store, make.envelope("2-c", arn=f"{make.ARN}-x"), rules=TELL, now=NOW + timedelta(minutes=1))
    return rows[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preview")

    async def main():
        store = await SqliteStore.open(folder / "triage.db")
        row = await fill(store)
        waiting = [group for group in await keys(store) if group != row.group]
        await store.close()
        return row, waiting[0]

    async def keys(store):
        return await store._reader.run(lambda c: [key for (key,) in c.execute("SELECT key FROM alert_groups")])

    return folder, *asyncio.run(main())


@pytest.fixture
def run(place, tmp_path):
    folder = place[0]
    (tmp_path / "rules").mkdir()
    rule = "version: 1\nrules: [{id: tell, alert: {group_wait: 0s, template: mine}}]\n"
    (tmp_path / "rules" / "a.yaml").write_text(rule)
    (tmp_path / "rules" / "mine.txt.j2").write_text("{% set title = 'T ' ~ code %}mine: {{ error }}")
    (tmp_path / "triage.toml").write_text(
        f'state_dir = "{folder}"\nrules = "rules"\n[receivers.mail]\nurls = ["mailto://u:secret@example.com"]\n'
        '[receivers.chat]\nurls = ["slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#c"]\ntemplate = "mine"\n'
    )

    def runner(*args):
        config = ["--config", str(tmp_path / "triage.toml")]
        return CliRunner(env={"TRIAGE_STATE_DIR": None}).invoke(cli, ["alerts", "preview", *args, *config])

    runner.folder = tmp_path
    return runner


def test_without_a_store_an_example_is_shown(tmp_path):
    result = CliRunner(env={"TRIAGE_STATE_DIR": str(tmp_path), "TRIAGE_CONFIG": None}).invoke(
        cli, ["alerts", "preview"]
    )
    assert result.exit_code == 0
    assert result.output.startswith("[critical] img-resize failed × 1,234: TimeoutError #ab12cd34\n\nError: ")
    assert not list(tmp_path.iterdir())


def test_a_receiver_gets_the_form_that_it_shows(run):
    assert '<div style="' in run("--receiver", "mail").output
    assert "- **Count:** 1,234" in run("--receiver", "mail", "--format", "markdown").output
    chat = run("--receiver", "chat")
    assert chat.output.splitlines()[0] == "T ab12cd34"
    assert "secret" not in run("--receiver", "mail", "--json").output


def test_a_message_that_was_sent_is_found_by_its_code_and_by_its_group(run, place):
    _, row, _ = place
    for name in (row.payload["code"], f"#{row.payload['code']}", row.group, row.group[:12]):
        shown = run(name)
        assert shown.exit_code == 0, shown.output
        assert shown.output.splitlines()[0] == f"T {row.payload['code']}"
    data = json.loads(run(row.group, "--json").output)
    assert [sorted(each) for each in data] == [["html", "markdown", "text", "title"]]
    built = run.folder / "built.yaml"
    built.write_text("version: 1\nrules: [{id: other, alert: {}}]\n")
    exact = run(row.group, "--rules", str(built))
    assert exact.output == f"{row.payload['title']}\n\n{row.payload['body']}\n"


def test_what_waits_is_told_as_it_will_be(run, place):
    _, _, waiting = place
    shown = run(waiting)
    assert shown.output.splitlines()[2] == "mine: Function timed out after 60 seconds (maxMemoryUsage: 8MB)"


def test_a_message_in_a_file_is_decided_first(run):
    (run.folder / "one.json").write_bytes(make.body("9-z", error="boom \x1b]0;x\x07"))
    shown = run(str(run.folder / "one.json"))
    assert shown.output.splitlines()[2] == "mine: boom ]0;x"
    good = make.body("9-y", condition="")
    (run.folder / "good.json").write_bytes(good)
    assert "nobody would be told" in run(str(run.folder / "good.json")).output


def test_a_template_can_be_tried_before_it_is_in_force(run):
    (run.folder / "new.md.j2").write_text("**{{ what }}**")
    tried = run("--template", str(run.folder / "new.md.j2"), "--format", "markdown")
    assert tried.output.splitlines()[2] == "**img-resize failed: TimeoutError**"
    (run.folder / "bad.txt.j2").write_text("{{ nothing }}")
    bad = run("--template", str(run.folder / "bad.txt.j2"))
    assert bad.exit_code == 1
    assert "Error: Function timed out" in bad.output
    assert "could not be used for this message: line 1: 'nothing' is undefined" in bad.output
    (run.folder / "latin.txt.j2").write_bytes(b"\xff")
    assert "not UTF-8" in run("--template", str(run.folder / "latin.txt.j2")).output


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["nothing-of-that-name"], 1, "no file, no single alert group and no message that is kept is named"),
        ([""], 0, "img-resize failed"),
        (["--receiver", "nobody"], 2, "no receiver is named 'nobody'; there are: chat, default, mail"),
        (["--template", "nothing"], 2, "beside the rules there are: mine"),
        (["--format", "pdf"], 2, "is not one of 'text', 'markdown', 'html'"),
    ],
)
def test_mistakes_are_told_with_what_there_is(run, args, code, told):
    result = run(*args)
    assert (result.exit_code, told in result.output) == (code, True), result.output
