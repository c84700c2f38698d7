"""``triage queue``: what it sends, what it refuses, and what it says."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from triage.cli import cli
from triage.cli.queue_input import entries

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
GOOD = b'{"requestContext": {"requestId": "r1", "functionArn": "acs:fc:cn-hangzhou:1:functions/f"}}'


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def invoke(*args: str | Path, stdin: bytes = b"") -> Result:
        environment = {"TRIAGE_STATE_DIR": str(tmp_path / "state"), "TRIAGE_CONFIG": None}
        return CliRunner().invoke(cli, ["queue", *map(str, args)], input=stdin, env=environment)

    return invoke


def peeked(run: Any) -> list[str]:
    return [message["body"] for message in json.loads(run("peek", "--limit", "1000", "--json").stdout)]


def test_every_sample_is_sent_and_the_unreadable_ones_are_named(run: Any) -> None:
    result = run("send", SAMPLES)
    files = sorted(path for path in SAMPLES.rglob("*") if path.is_file())
    assert result.exit_code == 0
    assert sorted(peeked(run)) == sorted(path.read_text() for path in files)
    warned = {line.split(": ")[0]: line for line in result.stderr.splitlines()}
    envelopes = {path for path in files if path.name[0] == "0" and path.suffix == ".json"}
    assert set(warned) == {str(path) for path in files if path not in envelopes}
    assert "will be quarantined: schema at $.requestContext" in warned[str(SAMPLES / "payloads" / "timeout.json")]
    assert (
        result.stdout == f"Sent {len(files)} messages to queue 'default', of which {len(warned)} will be quarantined.\n"
    )


def test_refusals_are_told_per_place_and_the_rest_is_sent(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(GOOD + b"\r\n\n" + b"x" * 65_537 + b"\n" + GOOD)
    (folder / "deep" / "good.json").write_bytes(GOOD)
    (folder / "deep" / "empty.json").touch()
    (folder / "deep" / "dangling.json").symlink_to("nowhere")
    (folder / "deep" / "huge.bin").write_bytes(b"x" * ((1 << 20) + 1))
    (folder / ".hidden").write_bytes(b"no")
    os.mkfifo(folder / "pipe")
    result = run("send", folder, tmp_path / "missing.json")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{folder}/a.jsonl:2: refused: empty line",
        f"{folder}/a.jsonl:3: refused: 65537 bytes, at most 65536 fit in a message",
        f"{folder}/deep/dangling.json: refused: No such file or directory",
        f"{folder}/deep/empty.json: refused: empty",
        f"{folder}/deep/huge.bin: refused: 1048577 bytes, at most 65536 fit in a message",
        f"{tmp_path}/missing.json: refused: No such file or directory",
    ]
    assert result.stdout == "Sent 3 messages to queue 'default'; refused 6.\n"
    assert peeked(run) == [GOOD.decode()] * 3


def test_json_tells_the_same(run: Any, tmp_path: Path) -> None:
    result = run("send", "--json", "--queue", "other", "-", stdin=GOOD + b"\n\ngarbage \x1b[31m")
    report = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (1, "")
    assert report["queue"] == "other"
    assert report["file"] == str(tmp_path / "state" / "queue.db")
    assert report["sent"] == 2
    assert report["refused"] == [{"place": "stdin:2", "reason": "empty line"}]
    assert [warned["place"] for warned in report["warned"]] == ["stdin:3"]


def test_hostile_text_does_not_reach_the_terminal(run: Any) -> None:
    assert "\x1b" not in run("send", stdin=b"\x1b[31mgarbage\n").stderr
    assert "\x1b" not in run("peek").stdout


def test_lines_of_standard_input_keep_their_bytes(run: Any) -> None:
    lines = [b" " + GOOD + b" ", b"\xff\x00", "ä".encode()]
    result = run("send", stdin=b"\r\n".join(lines))
    assert result.exit_code == 0
    assert peeked(run) == [line.decode("utf-8", "backslashreplace") for line in lines]


def test_one_document_over_several_lines_is_not_cut_up(run: Any) -> None:
    document = json.dumps(json.loads(GOOD), indent=2).encode()
    result = run("send", stdin=document)
    assert result.exit_code == 2
    assert "--raw" in result.stderr
    assert peeked(run) == []
    assert run("send", "--raw", stdin=document).exit_code == 0
    assert peeked(run) == [document.decode()]


def test_nothing_on_standard_input_sends_nothing(run: Any) -> None:
    assert run("send").stdout == "Sent 0 messages to queue 'default'.\n"
    refused = run("send", "--raw")
    assert (refused.exit_code, refused.stderr) == (1, "stdin: refused: empty\n")


def test_raw_without_standard_input_is_wrong_usage(run: Any) -> None:
    assert run("send", "--raw", SAMPLES).exit_code == 2


def test_lines_are_given_out_when_they_come_and_not_at_the_end() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stdin:
        given = entries([], stdin=stdin, whole_stdin=False)
        os.write(write, b"one\ntw")
        assert next(given) == ("stdin:1", b"one", "")
        assert next(given) is None
        os.write(write, b"o")
        os.close(write)
        assert [entry for entry in given if entry] == [("stdin:2", b"two", "")]


def test_stats_counts_every_queue(run: Any) -> None:
    run("send", "--queue", "b", stdin=b"x\ny\n")
    run("send", stdin=GOOD)
    rows = json.loads(run("stats", "--json").stdout)
    assert [(row["queue"], row["active"], row["leased"], row["delayed"]) for row in rows] == [
        ("b", 2, 0, 0),
        ("default", 1, 0, 0),
    ]
    assert run("stats", "--queue", "b").stdout.splitlines()[1].split()[:4] == ["b", "2", "0", "0"]


def test_purge_asks_first(run: Any) -> None:
    run("send", stdin=b"x\ny\n")
    assert run("purge").exit_code == 2
    assert len(peeked(run)) == 2
    assert run("purge", "--yes").stdout == "Deleted 2 messages.\n"
    assert peeked(run) == []


@pytest.mark.parametrize("command", [["peek"], ["stats"], ["purge", "--yes"]])
def test_looking_makes_no_queue(run: Any, tmp_path: Path, command: list[str]) -> None:
    result = run(*command)
    assert result.exit_code == 1
    assert "there is no queue yet at" in result.stderr
    assert not (tmp_path / "state").exists()
