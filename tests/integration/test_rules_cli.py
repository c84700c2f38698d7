"""``triage rules check`` and ``test`` as a person, a pipeline and a program meet them."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from triage.cli import cli
from triage.errors import RulesInvalid
from triage.rules.lint import CODES

GOOD = """version: 1
defaults: {owner: media, runbook: https://wiki.example/media}
rules:
  - id: images
    match: {function: "img-*"}
    alert: {to: media}
  - id: rest
    alert: {}
"""
WARNED = GOOD.replace('"img-*"', '"img-*", status_code: 200')
DEAD = GOOD.replace('"img-*"', "{all: [a, b]}")
CASES = """version: 1
cases:
  - name: images are media's
    envelope: {function: img-resize, error: {message: boom}}
    expect: {rule: images, alert: {to: media, text: [boom, img-resize]}}
  - name: the rest is not
    envelope: {function: pay}
    expect: {rule: rest, alert: {to: default}}
"""
CONFIG = """rules = "rules"
[receivers.default]
urls = ["json://localhost:1/"]
[receivers.oncall]
urls = ["json://localhost:1/"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    (tmp_path / "triage.toml").write_text(CONFIG)
    return tmp_path


def triage(*args: object, **environ: str | None) -> Result:
    env = {"TRIAGE_CONFIG": None, **environ}
    return CliRunner(env=env).invoke(cli, ["rules", *map(str, args)], prog_name="triage")


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    (folder / "rules" / name).write_text(text)
    return folder / "rules"


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        (GOOD, [], 0),
        (GOOD, ["--strict"], 0),
        (WARNED, [], 0),
        (WARNED, ["--strict"], 1),
        (DEAD, [], 1),
        (DEAD, ["--format", "github"], 1),
        (DEAD, ["--json"], 1),
        ("version: 2\n", [], 1),
        ("version: 2\n", ["--format", "github"], 1),
        (GOOD, ["--format", "html"], 2),
    ],
)
def test_the_exit_code_tells_how_bad_it_is(folder, text, options, code):
    assert triage("check", write(folder, text), *options).exit_code == code


def test_check_shows_place_caret_reason_mend_and_where_to_read_on(folder):
    path = write(folder, WARNED)

    lines = triage("check", path).stdout.splitlines()

    assert lines[0] == (
        f"{path}/a.yaml:5:45: warning R007 status-200: rule images: status 200 tells nothing: every function that ran has it, "
        'also when it failed (ask for error or function_error, and for a fault of the platform with ">= 400")'
    )
    assert lines[1] == '        match: {function: "img-*", status_code: 200}'
    assert lines[2].index("^") == lines[1].index("200")
    assert lines[3:] == ["a.yaml: 2 rules, valid", "1 warning; what each code means: docs/reference/lint.md"]


def test_check_of_one_file_names_that_file(folder):
    path = write(folder, DEAD) / "a.yaml"

    assert triage("check", path).stdout.startswith(f"{path}:5:23: error R001 never-matches: rule images: ")


def test_receivers_are_checked_with_a_configuration(folder):
    path = write(folder, GOOD)

    result = triage("check", path)
    assert (result.exit_code, "Receivers are not checked" in result.stderr, "): media\n" in result.stderr) == (
        0,
        True,
        True,
    )
    assert triage("check", path, TRIAGE_RECEIVERS='{"oncall": {"urls": ["json://localhost:1/"]}}').exit_code == 1
    assert triage("check", TRIAGE_RULES=str(path)).stdout == "a.yaml: 2 rules, valid\n"
    result = triage("check", "--config", folder / "triage.toml")
    assert result.exit_code == 1, "the rules that the configuration names are checked"
    assert (
        f"{path}/a.yaml:6:17: error R016 unknown-receiver: rule images: no receiver 'media' is configured"
        in result.stdout
    )
    assert triage("check", TRIAGE_CONFIG=str(folder / "triage.toml")).exit_code == 1


def test_check_tells_programs_everything(folder):
    path = write(folder, WARNED)

    told = json.loads(triage("check", path, "--format", "json").stdout)

    assert (told["valid"], told["problems"], told["files"]) == (True, [], [{"file": "a.yaml", "rules": 2}])
    (finding,) = told["findings"]
    assert finding == {
        "code": "R007",
        "name": "status-200",
        "level": "warning",
        "rule": "images",
        "file": f"{path}/a.yaml",
        "line": 5,
        "column": 45,
        "message": finding["message"],
        "mend": finding["mend"],
        "excerpt": '    match: {function: "img-*", status_code: 200}',
        "page": "docs/reference/lint.md#r007-status-200",
    }
    page = Path(__file__).parents[2].joinpath("docs", "reference", "lint.md").read_text()
    assert "\n## R007 status-200\n" in page


def test_mistakes_are_told_programs_in_the_same_form(folder):
    told = json.loads(triage("check", write(folder, "version: 2\n"), "--json").stdout)

    assert (told["valid"], told["findings"]) == (False, [])
    assert {each["line"] for each in told["problems"]} == {1}


def test_check_annotates_pull_requests(folder):
    path = write(folder, WARNED)

    result = triage("check", path, "--format", "github")
    assert result.stdout.startswith(
        f"::warning file={path}/a.yaml,title=R007 status-200,line=5,col=45::status 200 tells nothing"
    )
    assert len(result.stdout.splitlines()) == 1

    write(folder, 'version: 1\nrules:\n  - {id: "50%\\nof, it:", ignore: x}\n')
    (line,) = triage("check", path, "--format", "github").stdout.splitlines()
    assert line.startswith(f"::error file={path}/a.yaml,title=triage rules check,line=3,col=10::'50%25")
    assert "\n" not in line


def test_check_runs_the_cases_as_a_reload_does(folder):
    write(folder, CASES.replace("to: default", "to: night"), "a.test.yaml")
    path = write(folder, WARNED.replace(", status_code: 200", ""))
    result = triage("check", path)
    assert (result.exit_code, result.stderr.startswith("Receivers are not")) == (1, True)
    assert result.stdout.startswith(
        f"{path}/a.test.yaml:6:5: the case 'the rest is not' fails: alert.to is default, expected night\n"
    )
    told = json.loads(triage("check", path, "--json").stdout)
    assert (told["valid"], [each["line"] for each in told["problems"]]) == (False, [6])
    assert triage("check", path, "--format", "github").stdout.startswith(f"::error file={path}/a.test.yaml,")
    write(folder, CASES, "a.test.yaml")
    assert triage("check", path).exit_code == 0


def test_mistakes_in_cases_are_found_by_check(folder):
    path = write(folder, GOOD)
    write(folder, CASES.replace("expect", "exepct", 1), "a.test.yaml")

    result = triage("check", path)

    assert isinstance(result.exception, RulesInvalid)
    assert f"{path}/a.test.yaml:5:5: unknown key 'exepct' (did you mean 'expect'?)" in str(result.exception)


def test_cases_that_pass(folder):
    path = write(folder, GOOD)
    write(folder, CASES, "a.test.yaml")

    result = triage("test", path)

    assert (result.exit_code, result.stdout) == (0, "2 cases: 2 passed; coverage 100% (4 of 4)\n")
    assert triage("test", path, "--coverage").exit_code == 0
    assert triage("test", path / "a.yaml").stdout == result.stdout
    assert triage("test", "--config", folder / "triage.toml").stdout == result.stdout


def test_a_case_that_fails_shows_what_was_expected_and_what_came(folder):
    path = write(folder, GOOD.replace("img-*", "image-*"))
    write(folder, CASES, "a.test.yaml")

    result = triage("test", path)

    assert result.exit_code == 1
    assert result.stdout.splitlines()[:6] == [
        f"FAILED {path}/a.test.yaml:3: images are media's",
        "    - rule  images",
        "    +       rest",
        "    - alert.to  media",
        "    +           default",
        "    images: function: image-* does not hold for 'img-resize'",
    ]
    assert result.stdout.splitlines()[-1] == "2 cases: 1 passed, 1 failed; coverage 50% (2 of 4)"


def test_what_no_case_shows_is_told(folder):
    path = write(folder, GOOD)
    write(folder, CASES.partition("  - name: the rest")[0], "a.test.yaml")

    assert triage("test", path).exit_code == 0
    result = triage("test", path, "--coverage")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "1 case: 1 passed; coverage 50% (2 of 4)",
        f"  {path}/a.yaml:4: rule images: no case in which this does not hold: function: img-*",
        f"  {path}/a.yaml:7: rule rest: no case in which it matches",
    ]


def test_results_for_programs_and_pipelines(folder):
    path = write(folder, GOOD.replace("img-*", "image-*"))
    write(
        folder,
        CASES.replace("the rest is not", '"the \\x1b <rest> & \\u0007"'),
        "a.test.yaml",
    )
    junit = folder / "results.xml"

    result = triage("test", path, "--json", "--junit", junit)

    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [each["passed"] for each in told["cases"]] == [False, True]
    assert told["cases"][0]["differences"][0] == {"what": "rule", "expected": "images", "actual": "rest"}
    assert told["cases"][0]["why"].startswith("images: function: image-*")
    assert told["coverage"]["total"] == 4
    (suite,) = ET.fromstring(junit.read_text())
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("a.test.yaml", "2", "1")
    failed, passed = suite
    assert "expected images, got rest" in failed.find("failure").get("message")
    assert passed.find("failure") is None
    assert passed.get("name").startswith("the ?")


def test_rules_without_cases_are_no_success(folder):
    result = triage("test", write(folder, GOOD))

    assert result.exit_code == 1
    assert "they stand in *.test.yaml beside the rules" in result.stderr


def test_a_hostile_name_does_nothing_to_the_terminal(folder):
    path = write(folder, GOOD.replace("img-*", "image-*"))
    write(folder, CASES.replace("images are media's", '"\\x1b]0;owned\\x07"'), "a.test.yaml")

    assert "\x1b" not in triage("test", path).stdout


def test_the_shipped_rules_are_checked_and_tested_when_nothing_is_configured():
    assert triage("check", "--strict").exit_code == 0
    assert triage("test", "--coverage").exit_code == 0


def test_the_commands_of_the_group_are_listed():
    text = triage("--help").stdout

    assert all(name in text for name in ("check", "test", "schema"))
    assert triage("chekc").exit_code == 2


def test_the_page_of_each_finding_is_there():
    page = Path(__file__).parents[2].joinpath("docs", "reference", "lint.md").read_text()
    assert all(f"\n## {code} {each.name}\n" in page for code, each in CODES.items())
