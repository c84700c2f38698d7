"""Rule files on disk, and the commands that look at them."""

import json
import os

import pytest
from click.testing import CliRunner

from triage.cli.rules import rules
from triage.errors import ConfigInvalid, RulesInvalid
from triage.rulefiles import default_rules_dir, read_rules
from triage.rules.model import SourceText

EMPTY = "version: 1\nrules: []\n"


def test_a_folder_gives_its_rule_files_by_name(tmp_path):
    for name in ("20-b.yml", "10-a.yaml", ".hidden.yaml", "notes.md", "30-c.yaml~"):
        (tmp_path / name).write_text(f"# {name}\r\n")
    (tmp_path / "00-folder.yaml").mkdir()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "40.yaml").write_text(EMPTY)

    assert read_rules(tmp_path) == [
        SourceText("10-a.yaml", "# 10-a.yaml\r\n"),
        SourceText("20-b.yml", "# 20-b.yml\r\n"),
    ]


def test_links_are_followed_as_in_a_mounted_config_map(tmp_path):
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "a.yaml").write_text(EMPTY)
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    assert read_rules(tmp_path) == [SourceText("a.yaml", EMPTY)]


def test_one_file_may_have_any_name(tmp_path):
    (tmp_path / "rules.conf").write_bytes(b"\xef\xbb\xbf" + EMPTY.encode())

    assert read_rules(tmp_path / "rules.conf") == [SourceText("rules.conf", EMPTY)]


def test_one_file_takes_along_what_it_includes(tmp_path):
    for name, includes in (
        ("b.yaml", "[c.yaml, ../x.yaml, b.yaml]"),
        ("c.yaml", "a.yaml"),
        ("a.yaml", "7"),
        ("d.yaml", "x"),
    ):
        (tmp_path / name).write_text(f"version: 1\ninclude: {includes}\n")
    (tmp_path.parent / "x.yaml").write_text(EMPTY)

    assert [source.name for source in read_rules(tmp_path / "b.yaml")] == ["a.yaml", "b.yaml", "c.yaml"]


def test_check_of_one_file_knows_what_it_includes(tmp_path):
    (tmp_path / "shared.yaml").write_text("version: 1\nconditions: {noise: {function: x}, other: {function: y}}\n")
    (tmp_path / "one.yaml").write_text(
        "version: 1\ninclude: shared.yaml\ndefaults: {owner: o, runbook: 'https://r.example'}\nrules:\n"
        "  - {id: a, match: {use: noise}, alert: {}}\n  - {id: z, alert: {}}\n"
    )

    result = CliRunner().invoke(rules, ["check", str(tmp_path / "one.yaml"), "--strict"])

    # That nothing here uses `other` is no finding: other files may.
    assert (result.exit_code, result.output) == (0, "one.yaml: 2 rules, valid\nshared.yaml: 0 rules, valid\n")


def test_where_nothing_can_be_read_that_is_said(tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConfigInvalid, match="absent: no such file or folder"):
        read_rules(tmp_path / "absent")
    with pytest.raises(ConfigInvalid, match="empty: no rule files in this folder"):
        read_rules(tmp_path / "empty")


def test_every_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"version: 1\n# caf\xe9\n")
    (tmp_path / "b.yaml").symlink_to("nowhere")
    (tmp_path / "c.yaml").write_text(EMPTY)

    with pytest.raises(RulesInvalid) as caught:
        read_rules(tmp_path)

    assert [str(problem) for problem in caught.value.problems] == [
        "a.yaml:2:6: not UTF-8 (save the file as UTF-8)",
        "b.yaml: cannot be read: No such file or directory",
    ]


def test_a_file_is_not_read_further_than_it_could_be_used(tmp_path):
    (tmp_path / "big.yaml").touch()
    os.truncate(tmp_path / "big.yaml", 1 << 36)  # a hole: it takes no space on disk

    assert len(read_rules(tmp_path)[0].text) == (4 << 20) + 1


def check(*args):
    return CliRunner().invoke(rules, ["check", *map(str, args)])


def test_check_tells_what_is_in_each_file():
    result = check()

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "10-platform.yaml: 3 rules, valid"
    assert len(result.stdout.splitlines()) == len(read_rules(default_rules_dir()))


def test_check_tells_all_problems_where_a_terminal_can_open_them(tmp_path):
    (tmp_path / "a.yaml").write_text(EMPTY.replace("1", "2"))
    (tmp_path / "b.yaml").write_text("rules: []\n")

    result = check(tmp_path)

    assert isinstance(result.exception, RulesInvalid)
    assert [str(each).partition(" ")[0] for each in result.exception.problems] == [
        f"{tmp_path}/a.yaml:1:10:",
        f"{tmp_path}/b.yaml:1:1:",
    ]
    assert str(check(tmp_path / "b.yaml").exception).startswith(f"{tmp_path}/b.yaml:1:1: the key 'version' is missing")


def test_check_gives_json(tmp_path):
    (tmp_path / "a.yaml").write_text("version: 1\nrules:\n  - {id: a, ignore: known}\n")
    told = json.loads(check("--json", tmp_path).stdout)
    assert (told["valid"], told["files"], told["problems"]) == (True, [{"file": "a.yaml", "rules": 1}], [])

    (tmp_path / "a.yaml").write_text("version: 1\nrules:\n  - {id: a, ignroe: known}\n")
    result = check("--json", tmp_path)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["valid"] is False
    assert told["problems"][1] == {
        "file": f"{tmp_path}/a.yaml",
        "line": 3,
        "column": 13,
        "message": "unknown key 'ignroe'",
        "hint": "did you mean 'ignore'?",
        "excerpt": "  - {id: a, ignroe: known}",
    }


def test_check_of_a_path_that_is_not_there_is_a_usage_error(tmp_path):
    assert check(tmp_path / "absent").exit_code == 2


def test_schema_is_printed():
    assert json.loads(CliRunner().invoke(rules, ["schema"]).stdout)["title"] == "Rule file of triage"
