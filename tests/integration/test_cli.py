"""The command line as a person meets it: help, output, exit codes, and errors without tracebacks."""

import asyncio
import base64
import errno
import json
import os
import socket
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from answering import answering
from click.testing import CliRunner, Result
from make import NOW, RERUN, arrived, envelope, rule, rules

from triage.changes import Commit, Quarantined
from triage.cli import COMMANDS, cli, tell
from triage.decide import Reason, decide_batch
from triage.effects import decided, rules_alert
from triage.errors import ConfigInvalid, Misconfigured, Problem, RulesInvalid, StoreUnavailable, TriageError
from triage.rules.model import AlertPolicy
from triage.stores.sqlite import SqliteStore

HOSTILE = b"\x1b[2J\x1b]0;owned\x07 not json \xff\xfe\nsecond line\r\xe2\x80\xae"


def run(folder: Path, *args: str, **environ: str) -> Result:
    env = {"TRIAGE_STATE_DIR": str(folder), "TRIAGE_CONFIG": None, **environ}
    return CliRunner(env=env).invoke(cli, list(args), prog_name="triage")


def process(*args: str, cwd: Path, code: int, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the real program; whatever happens there is no traceback."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "triage", *args],
        cwd=cwd, env=clean | {"PYTHONPATH": str(Path(__file__).parents[2]), "TRIAGE_STATE_DIR": str(cwd / "state")} | environ,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) <= 24
    return done


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a failure that is re-run, one that is alerted, a success, a duplicate, a conflict, and a
    message in quarantine.
    """
    folder = tmp_path_factory.mktemp("state")

    async def fill() -> None:
        store = await SqliteStore.open(folder / "triage.db")
        again, tell = rule("timeouts", rerun=RERUN, condition="InvocationError"), rule("rest", alert=AlertPolicy())
        for step in (
            [
                arrived(envelope("1-aaaa"), at=NOW),
                arrived(
                    envelope("1-bbbb", condition="FunctionOOMError", error="\x1b[31mout of memory"),
                    at=NOW + timedelta(hours=1),
                ),
                arrived(envelope("1-cccc", condition="", status=200), at=NOW),
            ],
            [arrived(envelope("1-aaaa"), at=NOW), arrived(envelope("1-bbbb", condition="Other"), at=NOW)],
        ):
            decisions = decide_batch(step, await store.load_facts(step), rules(again, tell), now=NOW)
            pairs = list(zip(step, decisions, strict=True))
            await store.commit(
                Commit(
                    now=NOW,
                    rule_set="digest-of-rules",
                    decided=tuple(decided(a, d) for a, d in pairs if d.is_new),
                    duplicates=tuple(a for a, d in pairs if d.reason is Reason.DUPLICATE),
                    conflicts=tuple(a for a, d in pairs if d.reason is Reason.CONFLICT),
                )
            )
        bad = Quarantined("local", "m9", NOW, HOSTILE, "not_json", "byte 0", "no JSON\x1b[2J")
        large = Quarantined("local", "m10", NOW, b"x" * 10_000, "not_json", "", "")
        await store.commit(Commit(now=NOW, rule_set="digest-of-rules", quarantined=(bad, large)))
        await store.close()

    asyncio.run(fill())
    return folder


def test_help_fits_a_screen_and_groups_the_commands_by_task(tmp_path: Path):
    lines = run(tmp_path, "--help").stdout.splitlines()
    assert len(lines) <= 42
    assert max(map(len, lines)) <= 80
    task, tasks = "", {}
    for line in lines[lines.index("Commands:") + 1 :]:
        words = line.split()
        if not words:
            break
        task = words.pop(0) if not line.startswith("    ") else task
        tasks.setdefault(task, []).append(words[0])
    assert tasks == {
        "Run": ["run", "demo", "emulate", "drill", "init"],
        "Look": ["status", "top", "health", "failures", "lineage", "quarantine", "report", "receivers", "selfcheck"],
        "Act": ["rerun", "approve", "reject", "reruns", "switch", "alerts", "silence", "plan", "apply"],
        "Rules": ["rules"],
        "Queue": ["queue"],
        "Other": ["db", "config", "schema", "completion", "version"],
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_is_for_as_the_overview_does(tmp_path: Path, name: str):
    result = run(tmp_path, name, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) <= 30


def test_the_command_line_starts_without_heavy_libraries(tmp_path: Path):
    heavy = ["aiohttp", "pydantic", "apprise", "sqlite_utils", "yaml", "cel_expr_python", "jinja2", "asyncio"]
    code = f"import sys, triage.cli; triage.cli.main(['--help']); print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_mistyped_command_is_guessed(tmp_path: Path):
    done = process("failurez", cwd=tmp_path, code=2)
    assert done.stderr.endswith("Error: No such command 'failurez'. Did you mean 'failures'?\n")


def test_failures_are_listed_newest_first_without_control_characters(state: Path):
    result = run(state, "failures", "list")
    assert result.exit_code == 0
    assert [line.split()[0:1] + line.split()[2:5] for line in result.stdout.splitlines()[1:]] == [
        ["2026-03-01", "alerting", "my-fc-job", "1-bbbb"],
        ["2026-03-01", "rerun_pending", "my-fc-job", "1-aaaa"],
    ]
    assert "FunctionOOMError: \\x1b[31mout of memory" in result.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--function", "my-*"], ["1-bbbb", "1-aaaa"]),
        (["--function", "other"], []),
        (["--state", "alerting"], ["1-bbbb"]),
        (["--text", "OUT OF"], ["1-bbbb"]),
        (["--since", "2026-03-01T12:30:00Z"], ["1-bbbb"]),
        (["--until", "2026-03-01T12:30"], ["1-aaaa"]),
        (["--since", "1s"], []),
        (["--limit", "1"], ["1-bbbb"]),
        (["--group", "f" * 64], []),
    ],
)
def test_failures_are_filtered(state: Path, options: list[str], expected: list[str]):
    result = run(state, "failures", "list", "--json", *options)
    assert [row["request_id"] for row in json.loads(result.stdout)] == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--state", "broken"], "'broken' is not one of 'rerun_pending'"),
        (["--since", "soon"], 'neither a duration such as "2h" nor an ISO-8601 time'),
        (["--limit", "0"], "0 is not in the range"),
    ],
)
def test_a_wrong_option_is_a_usage_error(state: Path, options: list[str], said: str):
    result = run(state, "failures", "list", *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_story_of_a_failure_fits_a_screen(state: Path):
    result = run(state, "failures", "show", "1-a")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) <= 30
    assert lines[0] == "1-aaaa  rerun_pending"
    told = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert told["function"].split()[1:] == ["my-fc-job", "(region", "cn-hangzhou,", "account", "1034354682)"]
    assert "condition InvocationError, status_code 200, invoke_count 2" in told["outcome"]
    assert "Function timed out after 60 seconds" in told["error"]
    assert '{"failure":true}' in told["event"]
    assert "rule timeouts, rule_set digest-of-ru" in told["decision"]
    assert "rerun (task_id" in told["then"]
    assert "root 1-aaaa" in told["lineage"]
    assert "pending" in told["rerun"]


def test_the_story_tells_of_other_bodies_and_shows_no_control_characters(state: Path):
    result = run(state, "failures", "show", "1-bbbb")
    assert "conflicts" in result.stdout
    assert "\x1b" not in result.stdout
    detail = json.loads(run(state, "failures", "show", "1-bbbb", "--json").stdout)
    assert json.loads(detail["conflicts"][0]["body"])["requestContext"]["condition"] == "Other"
    assert detail["row"]["received_at"] == "2026-03-01T13:00:00Z"


def test_an_unknown_failure_is_told_with_a_hint(state: Path):
    for request_id in ("2-", "1-"):  # none begins so, and more than one begins so
        result = run(state, "failures", "show", request_id)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "`triage failures list` shows them" in result.stderr


def test_quarantine_lists_and_shows_hostile_bytes_safely(state: Path):
    listed = run(state, "quarantine", "list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["ID", "2", "1"]
    shown = run(state, "quarantine", "show", "1")
    for result in (listed, shown):
        assert not set(result.stdout) & {"\x1b", "\x07", "\r", "\u202e"}
    assert "\\x1b[2J\\x1b]0;owned\\x07 not json \\xff\\xfe" in shown.stdout
    assert run(state, "quarantine", "show", "1", "--raw").stdout_bytes == HOSTILE
    entry = json.loads(run(state, "quarantine", "show", "1", "--json").stdout)
    assert base64.b64decode(entry["body_base64"]) == HOSTILE
    assert (entry["reason"], entry["where"]) == ("not_json", "byte 0")
    assert [row["bytes"] for row in json.loads(run(state, "quarantine", "list", "--json").stdout)] == [
        10_000,
        len(HOSTILE),
    ]


def test_a_long_body_is_cut_and_says_so(state: Path):
    result = run(state, "quarantine", "show", "2")
    assert len(result.stdout) < 5000
    assert "5904 more bytes; --raw gives all" in result.stderr


def test_an_unknown_quarantine_entry_is_told_with_a_hint(state: Path):
    result = run(state, "quarantine", "show", "77")
    assert result.exit_code == 1
    assert "`triage quarantine list` shows them" in result.stderr


def test_status_shows_sums_that_add_up(state: Path):
    result = run(state, "status")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "rules in force         none yet"
    sums = {line.rsplit(maxsplit=1)[0].strip(): int(line.rsplit(maxsplit=1)[1]) for line in lines[1:]}
    assert sums["received"] == 7 == sum(sums[name] for name in ("decided", "duplicates", "conflicts", "quarantined"))
    assert (sums["decided"], sums["duplicates"], sums["conflicts"], sums["quarantined"]) == (3, 1, 1, 2)
    assert sums["failures"] == 2 == sums["alerting"] + sums["rerun_pending"]
    totals = json.loads(run(state, "status", "--json").stdout)
    assert totals["adds_up"] is True
    assert totals["states"] == {"alerting": 1, "rerun_pending": 1}


def test_status_tells_the_rules_in_force_and_what_is_wrong_with_the_files(tmp_path: Path):
    problems = [
        Problem("rules/a.yaml", 3, 5, "unknown key 'mach'", "did you mean 'match'?", "    mach: {}\x1b[2J"),
        Problem("rules/b.yaml", 0, 0, "cannot be read: Permission denied"),
    ]

    async def fill() -> None:
        store = await SqliteStore.open(tmp_path / "triage.db")
        await store.save_rule_set("c0ffee" * 10, (), now=NOW)
        alert = rules_alert(problems, policy=AlertPolicy())
        assert await store.refuse_rules(problems, alert, now=NOW + timedelta(minutes=1))
        await store.close()

    asyncio.run(fill())
    result = run(tmp_path, "status")
    assert result.exit_code == 0, "the rules in force do their work: a health check must not restart the daemon"
    assert result.stdout.splitlines()[:6] == [
        "rules in force         c0ffeec0ffee since 2026-03-01 12:00:00Z",
        "rule files REFUSED     at 2026-03-01 12:01:00Z; what is wrong with them:",
        "  rules/a.yaml:3:5: unknown key 'mach' (did you mean 'match'?)",
        "          mach: {}\\x1b[2J",
        "          ^",
        "  rules/b.yaml: cannot be read: Permission denied",
    ]
    rules = json.loads(run(tmp_path, "status", "--json").stdout)["rules"]
    assert (rules["digest"], rules["loaded_at"]) == ("c0ffee" * 10, "2026-03-01T12:00:00Z")
    assert rules["refused_at"] == "2026-03-01T12:01:00Z"
    assert [(p["file"], p["line"], p["column"]) for p in rules["problems"]] == [
        ("rules/a.yaml", 3, 5),
        ("rules/b.yaml", 0, 0),
    ]


def test_a_store_that_is_not_there_yet_is_told(tmp_path: Path):
    done = process("status", cwd=tmp_path, code=1)
    assert done.stderr == (
        f"triage: the store cannot be used: there is none yet at {tmp_path}/state/triage.db. "
        "Has `triage run` run with these settings?\n"
    )


@pytest.mark.parametrize(
    "command", [["status"], ["failures", "list"], ["failures", "show", "x"], ["quarantine", "list"]]
)
def test_looking_makes_no_store(tmp_path: Path, command: list[str]):
    assert isinstance(run(tmp_path / "state", *command).exception, StoreUnavailable)
    assert not (tmp_path / "state").exists()


def test_config_show_masks_secrets_and_tells_origins(tmp_path: Path):
    file = tmp_path / "triage.toml"
    file.write_text(
        '[credentials]\naccess_key_id = "id"\naccess_key_secret = "hunter2"\n[receivers."a.b"]\nurls = "slack://hunter2/x/y"\n'
    )
    before = run(tmp_path, "--config", str(file), "config", "show", TRIAGE_QUEUE__NAME="mine")
    after = run(tmp_path, "config", "show", "--config", str(file), TRIAGE_QUEUE__NAME="mine")
    by_variable = run(tmp_path, "config", "show", TRIAGE_CONFIG=str(file), TRIAGE_QUEUE__NAME="mine")
    assert before.stdout == after.stdout == by_variable.stdout
    assert "hunter2" not in before.stdout
    assert f'access_key_secret = "**********"  # {file}' in before.stdout
    assert 'name = "mine"  # $TRIAGE_QUEUE__NAME' in before.stdout
    assert '[receivers."a.b"]\nurls = ["slack://***"]' in before.stdout
    assert 'level = "info"  # default' in before.stdout
    machine = json.loads(run(tmp_path, "config", "show", "--json", "--config", str(file)).stdout)
    assert machine["origins"]["credentials.access_key_secret"] == str(file)
    assert "hunter2" not in json.dumps(machine)


def test_config_show_prints_labels_as_they_are_read(tmp_path: Path):
    text = '[[labels]]\nfunction = "img-*"\nset = {team = "media \\"1\\""}\n'
    (tmp_path / "triage.toml").write_text(text)
    shown = run(tmp_path, "config", "show", "--config", str(tmp_path / "triage.toml")).stdout
    labels = shown[shown.index("[[labels]]") :]
    assert tomllib.loads(labels)["labels"] == [{"function": "img-*", "set": {"team": 'media "1"'}}]


def test_init_writes_what_run_can_use_and_overwrites_nothing(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    first = run(tmp_path, "init", str(folder))
    assert first.exit_code == 0
    assert f"triage run --config {folder}/triage.toml" in first.stdout
    assert run(tmp_path, "config", "check", "--config", str(folder / "triage.toml")).exit_code == 0
    assert (folder / "rules" / "README.md").exists()
    assert run(tmp_path, "rules", "check", str(folder / "rules")).exit_code == 0
    (folder / "triage.toml").write_text("mine")
    second = run(tmp_path, "init", str(folder))
    assert second.exit_code == 1
    assert "exists already and is left as it is" in second.stderr
    assert (folder / "triage.toml").read_text() == "mine"


def test_a_receivers_template_that_is_missing_or_broken_is_shown_with_its_place(tmp_path: Path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.yaml").write_text("version: 1\nrules: [{id: all, owner: media, alert: {}}]\n")
    config = tmp_path / "triage.toml"
    config.write_text('rules = "rules"\n[receivers.default]\nurls = ["console:"]\ntemplate = "oncal"\n')

    def check(what):
        """What it says is wrong; empty: nothing."""
        done = run(tmp_path, what, "check", "--config", str(config))
        return "" if done.exit_code == 0 else f"{done.output}{done.exception}"

    for what in ("config", "rules"):
        assert f"{config}:4:1: receivers.default.template: there is no template 'oncal' beside the rules" in check(what)
    (problem,) = json.loads(run(tmp_path, "rules", "check", "--json", "--config", str(config)).stdout)["problems"]
    assert (problem["file"], problem["line"], problem["column"]) == (str(config), 4, 1)
    assert "'oncal' beside" not in run(tmp_path, "rules", "check", str(tmp_path / "rules" / "a.yaml")).output

    template = tmp_path / "rules" / "oncall.txt.j2"
    template.write_text("fine\n{{ functoin }}\n")
    assert "did you mean 'oncall'?" in check("config")
    config.write_text(config.read_text().replace("oncal", "oncall"))
    for what in ("config", "rules"):
        assert f"{template}:2:1: the template cannot be used: 'functoin' is undefined" in check(what)
    template.write_text("{{ function }}")
    assert check("config") == check("rules") == ""


@pytest.mark.parametrize(
    ("args", "setup", "said"),
    [
        (["config", "check", "--config", "bad.toml"], "[queue\n", "bad.toml:1:7: not TOML"),
        (["run", "--config", "bad.toml"], '[queue]\npth = "x"\n', "did you mean 'path'?"),
        (["run", "--config", "missing.toml"], "", "missing.toml: cannot read the configuration: No such file"),
        (["run", "--config", "bad.toml"], 'rules = "nowhere"\n', "nowhere: no such file or folder"),
        (["run", "--config", "bad.toml"], 'rules = "bad.toml"\n', "the rules cannot be used"),
        (
            ["run", "--config", "bad.toml"],
            'state_dir = "/proc/triage"\n',
            "/proc/triage: No such file or directory (check",
        ),
        (["run", "--config", "bad.toml"], '[store]\npath = "/proc/triage.db"\n', "/proc/triage.db"),
        (["init", "/proc/triage"], "", "/proc/triage"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(tmp_path: Path, args: list[str], setup: str, said: str):
    (tmp_path / "bad.toml").write_text(setup)
    environ = {} if "state_dir" not in setup else {"TRIAGE_STATE_DIR": "/proc/triage"}
    # A disk may be mended, and the daemon then started again, without anybody's changing the configuration.
    code = 3 if args[0] == "run" and "/proc" not in setup else 1
    assert said in process(*args, cwd=tmp_path, code=code, **environ).stderr


def test_a_reader_that_goes_away_is_no_error_message(state: Path):
    command = f"{sys.executable} -m triage schema envelope | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) in ((141, ""), (0, ""))  # 0: it had written all before the reader went


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (TriageError("why"), 1, "triage: why\n"),
        (
            Misconfigured("AccessDenied", "no right"),
            1,
            "triage: AccessDenied: no right (until the configuration is changed this will not work)\n",
        ),
        (StoreUnavailable("why"), 1, "triage: the store cannot be used: why\n"),
        (ConfigInvalid([Problem("f", 1, 2, "why")]), 1, "triage: the configuration cannot be used:\nf:1:2: why\n"),
        (RulesInvalid([Problem("f", 0, 0, "why")]), 1, "triage: the rules cannot be used:\nf: why\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            1,
            "triage: /x: Permission denied (check owner and mode, or run as the user they belong to)\n",
        ),
        (
            ExceptionGroup("a", [TriageError("one"), ExceptionGroup("b", [TriageError("two"), TriageError("one")])]),
            1,
            "triage: one\ntriage: two\n",
        ),
        (KeyboardInterrupt(), 130, ""),
        (BaseExceptionGroup("a", [KeyboardInterrupt()]), 130, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_become_words_and_exit_codes(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
):
    assert tell(error) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "I/O error"), ExceptionGroup("a", [TriageError("x"), ZeroDivisionError()])]
)
def test_a_defect_keeps_its_traceback(error: Exception):
    with pytest.raises(type(error)):
        tell(error)


def test_a_port_in_use_is_told(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = process("queue", "serve", "--port", str(taken.getsockname()[1]), cwd=tmp_path, code=1)
    assert "address already in use" in done.stderr


@pytest.mark.parametrize(("status", "said"), [(200, "ok"), (503, "consumer has not got on for 200 s\x1b[2J")])
def test_health_says_what_the_daemon_says(tmp_path: Path, status: int, said: str):
    with answering(status, f"{said}\n") as address:
        for result in (
            run(tmp_path, "health", TRIAGE_WEB__LISTEN=address),
            run(
                tmp_path,
                "health",
                TRIAGE_WEB__LISTEN=address.replace("127.0.0.1", "0.0.0.0"),
                TRIAGE_WEB__TOKEN="t" * 16,
            ),
            run(tmp_path, "health", "--url", f"http://{address}/", http_proxy="http://127.0.0.1:1"),
        ):
            assert result.exit_code == (0 if status == 200 else 1)
            assert (result.stdout or result.stderr) == said.replace("\x1b", "\\x1b") + "\n"


@pytest.mark.parametrize(
    ("args", "listen", "code", "said"),
    [
        ([], "", 1, "set listen ="),
        ([], "127.0.0.1:0", 1, "give --url"),
        (["--url", "https://127.0.0.1:1"], "", 2, "--url is http://HOST:PORT"),
        (["--url", "http://127.0.0.1:x"], "", 2, "--url is http://HOST:PORT"),
        (["--url", "http://127.0.0.1:1"], "", 1, "no answer from 127.0.0.1:1: "),
    ],
)
def test_health_without_an_answer_is_told(tmp_path: Path, args: list[str], listen: str, code: int, said: str):
    done = process("health", *args, cwd=tmp_path, code=code, TRIAGE_WEB__LISTEN=listen)
    assert said in done.stderr


def test_a_port_in_use_keeps_the_daemon_from_starting_in_one_line(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = process("run", cwd=tmp_path, code=1, TRIAGE_WEB__LISTEN=address, TRIAGE_LOG__LEVEL="error")
    (line,) = done.stderr.splitlines()
    assert "address already in use" in line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_complete(tmp_path: Path, shell: str):
    assert "_TRIAGE_COMPLETE" in run(tmp_path, "completion", shell).stdout
    done = process(
        cwd=tmp_path,
        code=0,
        _TRIAGE_COMPLETE=f"{shell}_complete",
        COMP_WORDS="triage qua",
        COMP_CWORD="1" if shell != "fish" else "qua",
    )
    assert "quarantine" in done.stdout
    assert "failures" not in done.stdout


def test_version_tells_what_a_bug_report_needs(tmp_path: Path):
    versions = json.loads(run(tmp_path, "version", "--json").stdout)
    assert {"triage", "python", "sqlite", "aiohttp"} <= set(versions)
    assert run(tmp_path, "--version").stdout == f"triage {versions['triage']}\n"
