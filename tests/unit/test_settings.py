"""Settings: what is read from where, and how a mistake is told."""

import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.configuration import labels_of
from triage.envelope import Destination
from triage.errors import ConfigInvalid
from triage.settings import LocalSource, SmqSource, load, load_settings, parse_duration, show_duration
from triage.settings.template import commented_settings
from triage.settings.values import read_function

HOME = {"HOME": "/home/operator"}


def written(folder: Path, text: str) -> Path:
    file = folder / "triage.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(folder: Path, text: str, **environ: str) -> list[str]:
    """Every problem as one text, the folder's name left out."""
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(written(folder, text), environ={**HOME, **environ})
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_without_file_and_environment_the_local_queue_is_read_and_the_console_told():
    settings = load_settings(None, environ=HOME)
    assert settings.state_dir == Path("/home/operator/.local/state/triage")
    assert settings.queue.path == Path("/home/operator/.local/state/triage/queue.db")
    assert settings.store.path == Path("/home/operator/.local/state/triage/triage.db")
    assert settings.rules is None
    assert settings.sources == (LocalSource(),)
    assert [url.get_secret_value() for url in settings.receivers["default"].urls] == ["console:"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/operator/.local/state/triage"),
        ({"XDG_STATE_HOME": "/x"}, "/x/triage"),
        ({"XDG_STATE_HOME": "/x", "STATE_DIRECTORY": "/var/lib/triage"}, "/var/lib/triage"),
        ({"STATE_DIRECTORY": "/var/lib/triage:/var/lib/other"}, "/var/lib/triage"),
        ({"STATE_DIRECTORY": "/var/lib/triage", "TRIAGE_STATE_DIR": "/mine"}, "/mine"),
    ],
    ids=["home", "xdg", "systemd before xdg", "first of systemd's", "ours before all"],
)
def test_the_state_folder_is_chosen_in_order(environ: dict[str, str], expected: str):
    assert load_settings(None, environ=HOME | environ).state_dir == Path(expected)


def test_environment_goes_over_secret_files_and_these_over_the_file(tmp_path: Path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "credentials__access_key_secret").write_text("from-secret-file\n")
    (secrets / "fc__region").write_text("from-secret-file")
    (secrets / "receivers__ops__urls").write_text("json://one.example/\n\njson://two.example/\n")
    file = written(tmp_path, '[fc]\nregion = "from-file"\naccount = "from-file"\n[credentials]\naccess_key_id = "id"\n')
    loaded = load(file, environ=HOME | {"TRIAGE_FC__REGION": "from-environ", "TRIAGE_SECRETS_DIR": str(secrets)})
    settings = loaded.settings
    assert (settings.fc.region, settings.fc.account) == ("from-environ", "from-file")
    assert settings.credentials.access_key_secret.get_secret_value() == "from-secret-file"
    assert [url.get_secret_value() for url in settings.receivers["ops"].urls] == [
        "json://one.example/",
        "json://two.example/",
    ]
    assert "default" in settings.receivers
    assert loaded.origins["fc.region"] == "$TRIAGE_FC__REGION"
    assert loaded.origins["fc.account"] == str(file)
    assert loaded.origins["credentials.access_key_secret"] == "secret file credentials__access_key_secret"


@pytest.mark.parametrize("prefix", ["", "triage_"], ids=["a file", "a folder"])
def test_systemd_credentials_are_secret_files(tmp_path: Path, prefix: str):
    """``LoadCredential=NAME:FILE``, and ``LoadCredential=triage:FOLDER``, which puts that name before the files'."""
    (tmp_path / f"{prefix}credentials__access_key_secret").write_text("hunter2")
    environ = HOME | {"CREDENTIALS_DIRECTORY": str(tmp_path), "TRIAGE_CREDENTIALS__ACCESS_KEY_ID": "id"}
    assert load_settings(None, environ=environ).credentials.access_key_secret.get_secret_value() == "hunter2"


def test_sources_are_told_apart_by_type(tmp_path: Path):
    text = """
        [[sources]]
        type = "smq"
        endpoint = "http://127.0.0.1:8080/"
        queue = "fc-results"
        destination = "failure"
        wait = 5
        [[sources]]
        type = "local"
    """
    smq, local = load_settings(written(tmp_path, text), environ=HOME).sources
    assert isinstance(smq, SmqSource)
    assert isinstance(local, LocalSource)
    assert (smq.endpoint, smq.destination) == ("http://127.0.0.1:8080", Destination.FAILURE)
    assert (smq.receivers, smq.batch, smq.wait) == (4, 16, timedelta(seconds=5))


def test_labels_say_of_which_functions(tmp_path: Path):
    text = """
        [[labels]]
        function = "/^media/"
        set = {team = "media", tier = "1"}
        [[labels]]
        function = "*"
        set = {tier = "3"}
    """
    first, second = load_settings(written(tmp_path, text), environ=HOME).labels
    assert (first.function, first.set, second.set) == ("/^media/", {"team": "media", "tier": "1"}, {"tier": "3"})
    labels = labels_of((first, second))
    assert labels("media/resize") == {"team": "media", "tier": "1"}
    assert labels("resize") == {"tier": "3"}
    assert labels_of(())("resize") == {}


def test_lists_come_from_the_environment_as_json_or_as_one_text():
    environ = HOME | {
        "TRIAGE_SOURCES": '[{"type": "local", "name": "a"}]',
        "TRIAGE_RECEIVERS__OPS__URLS": "json://one.example/",
        "TRIAGE_RECEIVERS__DEV__URLS": '["console:", "json://two.example/"]',
        "TRIAGE_QUARANTINE__TO": "ops",
    }
    settings = load_settings(None, environ=environ)
    assert [source.name for source in settings.sources] == ["a"]
    assert [len(settings.receivers[name].urls) for name in ("ops", "dev")] == [1, 2]
    assert settings.quarantine.to == ("ops",)


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path):
    text = 'state_dir = "state"\nrules = "rules"\n[store]\npath = "/elsewhere/x.db"\n'
    settings = load_settings(written(tmp_path, text), environ=HOME)
    assert settings.rules == tmp_path / "rules"
    assert settings.queue.path == tmp_path / "state" / "queue.db"
    assert settings.store.path == Path("/elsewhere/x.db")


def test_names_that_kubernetes_sets_for_a_service_called_triage_are_ignored():
    environ = HOME | {"TRIAGE_PORT": "tcp://10.0.0.1:80", "TRIAGE_SERVICE_HOST": "10.0.0.1"}
    assert load_settings(None, environ=environ) == load_settings(None, environ=HOME)


MISTAKES = {
    "not TOML": ("[queue\n", ["triage.toml:1:7: not TOML: Expected ']' at the end of a table declaration\n    [queue\n          ^"]),
    "unknown key": (
        '[queue]\n  pth = "x"\n',
        ["triage.toml:2:3: queue.pth: no such setting (did you mean 'path'?)\n      pth = \"x\"\n      ^"],
    ),
    "unknown table": ("[storre]\n", ["triage.toml:1:2: storre: no such setting (did you mean 'store'?)\n    [storre]\n     ^"]),
    "unknown key of a source": (
        '[[sources]]\ntype = "local"\n[[sources]]\ntype = "local"\nname = "b"\nqueuee = "x"\n',
        ["triage.toml:6:1: sources.1.queuee: no such setting (did you mean 'queue'?)\n    queuee = \"x\"\n    ^"],
    ),
    "labels for no function": (
        '[[labels]]\nfunction = "/(/"\nset = {team = "a"}\n',
        ['triage.toml:2:1: labels.0.function: not a regular expression of RE2: missing ): (\n    function = "/(/"\n    ^'],
    ),
    "a label that is no text": (
        '[[labels]]\nfunction = "a"\nset = {tier = 1}\n',
        ["triage.toml:3:1: labels.0.set.tier: expected text\n    set = {tier = 1}\n    ^"],
    ),
    "all at once, in file order": (
        '[fc]\ntimeout = "soon"\n[log]\nlevel = "loud"\n',
        [
            'triage.toml:2:1: fc.timeout: expected a duration such as "90s", "5m", "2h", "1d" or a number of seconds\n    timeout = "soon"\n    ^',
            "triage.toml:4:1: log.level: input should be 'debug', 'info', 'warning' or 'error'\n    level = \"loud\"\n    ^",
        ],
    ),
    "required, not given": (
        '[[sources]]\ntype = "smq"\nqueue = "q"\n',
        ["triage.toml:1:3: sources.0.endpoint: required, but not given\n    [[sources]]\n      ^"],
    ),
    "no type of source": (
        '[[sources]]\nname = "x"\n',
        ['triage.toml:1:3: sources.0.type: required, but not given (type = "local", "smq" or "reconcile")\n    [[sources]]\n      ^'],
    ),
    "unknown type of source": (
        '[[sources]]\ntype = "kafka"\n',
        ['triage.toml:2:1: sources.0.type: no such type of source (type = "local", "smq" or "reconcile")\n    type = "kafka"\n    ^'],
    ),
    "a watchdog that is too nervous": (
        '[watchdog]\nlimit = "1s"\n',
        ["triage.toml:1:2: watchdog: limit must be at least 2s, since signs of life are half a second apart; 0s = never\n    [watchdog]\n     ^"],
    ),
    "a watchdog that tells nobody": (
        '[watchdog]\nto = ["oncall"]\n',
        ["triage.toml:2:1: watchdog.to: no receiver is named 'oncall'; add [receivers.oncall]\n    to = [\"oncall\"]\n    ^"],
    ),
    "lookback longer than tasks are kept": (
        '[[sources]]\ntype = "reconcile"\nfunctions = ["f"]\nlookback = "8d"\n',
        ["triage.toml:1:3: sources.0: lookback must be at most 7d: the service keeps tasks no longer\n    [[sources]]\n      ^"],
    ),
    "failures kept no longer than reconcile looks back": (
        '[[sources]]\ntype = "reconcile"\nfunctions = ["f"]\n[retention]\nfailures = "24h"\n',
        ["triage.toml:5:1: retention.failures: must be longer than lookback of the source 'reconcile' (1d), or it would find again what was removed\n    failures = \"24h\"\n    ^"],
    ),
    "grace longer than lookback": (
        '[[sources]]\ntype = "reconcile"\nfunctions = ["f"]\nlookback = "5m"\n',
        ["triage.toml:1:3: sources.0: grace must be shorter than lookback, or no task is ever looked at\n    [[sources]]\n      ^"],
    ),
    "no name of a function": (
        '[[sources]]\ntype = "reconcile"\nfunctions = ["a/b/c"]\n',
        ['triage.toml:3:1: sources.0.functions.0: expected NAME, SERVICE/NAME, or either with @QUALIFIER\n    functions = ["a/b/c"]\n    ^'],
    ),
    "no source at all": ("sources = []\n", ["triage.toml:1:1: sources: needs at least one\n    sources = []\n    ^"]),
    "name used twice": (
        '[[sources]]\ntype = "local"\n[[sources]]\ntype = "local"\n',
        ["triage.toml:1:3: sources: the name 'local' is used twice; give each source a name of its own\n    [[sources]]\n      ^"],
    ),
    "more than the service takes": (
        '[[sources]]\ntype = "smq"\nendpoint = "http://h"\nqueue = "q"\nbatch = 17\nwait = "31s"\n',
        [
            "triage.toml:5:1: sources.0.batch: must be at most 16\n    batch = 17\n    ^",
            'triage.toml:6:1: sources.0.wait: must be at most 30s\n    wait = "31s"\n    ^',
        ],
    ),
    "signature without region": (
        '[[sources]]\ntype = "smq"\nendpoint = "http://h"\nqueue = "q"\nsignature = "v4"\n',
        ['triage.toml:1:3: sources.0: signature = "v4" needs region, such as "cn-hangzhou"\n    [[sources]]\n      ^'],
    ),
    "no address": ('[fc]\nendpoint = "fc.example"\n', ['triage.toml:2:1: fc.endpoint: expected an http:// or https:// address\n    endpoint = "fc.example"\n    ^']),
    "half a key pair": (
        '[credentials]\naccess_key_id = "id"\n',
        [
            "triage.toml:1:2: credentials: access_key_id and access_key_secret belong together; leave both empty for the vendor's chain\n    [credentials]\n     ^"
        ],
    ),
    "receiver without address": ("[receivers.ops]\n", ["triage.toml:1:2: receivers.ops.urls: required, but not given\n    [receivers.ops]\n     ^"]),
    "quarantine tells nobody": (
        '[quarantine]\nto = ["ops"]\n',
        ["triage.toml:2:1: quarantine.to: no receiver is named 'ops'; add [receivers.ops]\n    to = [\"ops\"]\n    ^"],
    ),
    "lease shorter than an action": (
        '[outbox]\nlease = "10s"\n[fc]\ntimeout = "5s"\n',
        ["triage.toml: receivers.default.timeout: must be shorter than outbox.lease, or the action would be done twice"],
    ),
    "open to strangers": (
        '[web]\nlisten = "0.0.0.0:8020"\n',
        ["triage.toml:1:2: web: listen = '0.0.0.0:8020' can be reached by others; set token, or use 127.0.0.1\n    [web]\n     ^"],
    ),
    "token too short": (
        '[web]\ntoken = "hunter2"\n',
        ["triage.toml:2:1: web.token: expected at least 16 letters, digits or '.', '_', '~', '+', '/', '-'\n    token = ***\n    ^"],
    ),
    "value instead of a table": ("queue = 3\n", ["triage.toml:1:1: queue: expected a table\n    queue = 3\n    ^"]),
    "inside an inline table the table is shown": (
        'queue = {nme = "x"}\n',
        ["triage.toml:1:1: queue.nme: no such setting (did you mean 'name'?)\n    queue = {nme = \"x\"}\n    ^"],
    ),
    "keys inside a text are not keys": (
        'rules = """\nname = 1\n"""\n[queue]\nname = 1\n',
        ["triage.toml:5:1: queue.name: expected text\n    name = 1\n    ^"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_the_file_is_told_with_its_place(tmp_path: Path, text: str, expected: list[str]):
    assert problems(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TRIAGE_STORRE__PATH": "x"}, "$TRIAGE_STORRE__PATH: no such setting (did you mean 'store'?)"),
        ({"TRIAGE_STORE__PTH": "x"}, "$TRIAGE_STORE__PTH: store.pth: no such setting (did you mean 'path'?)"),
        ({"TRIAGE_SOURCES": "local"}, "environment: sources: expected JSON"),
        (
            {"TRIAGE_CONSUMER__BATCH": "many"},
            "$TRIAGE_CONSUMER__BATCH: consumer.batch: input should be a valid integer, unable to parse string as an integer",
        ),
    ],
)
def test_a_mistake_in_the_environment_is_told_with_the_variable(tmp_path: Path, environ: dict[str, str], expected: str):
    assert problems(tmp_path, "", **environ) == [expected]


def test_mistakes_in_the_secret_files_are_told(tmp_path: Path):
    folder = tmp_path / "secrets"
    assert problems(tmp_path, "", TRIAGE_SECRETS_DIR=str(folder)) == [
        '$TRIAGE_SECRETS_DIR: directory "secrets" does not exist'
    ]
    folder.mkdir()
    (folder / "credential__x").write_text("hunter2")
    assert problems(tmp_path, "", TRIAGE_SECRETS_DIR=str(folder)) == [
        "secrets/credential__x: no such setting (did you mean 'credentials'?)"
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[credentials]\naccess_key_secret = "hunter2\n',
        "[credentials]\naccess_key_secret = 7777hunter2\n",
        '[credentials]\nsecurity_token = ["hunter2"]\n',
        '[receivers.ops]\nurls = ["slack://hunter2", 3]\n',
        '[receivers.ops]\nurls = [\n  "slack://hunter2",\n  hunter2\n]\n',
        '[receivers.ops]\nurls = "json://user:hunter2@host"\ntimeout = "json://user:hunter2@host"\n',
        '[fc]\nendpoint = "ftp://user:hunter2@host"\n',
        '[credentials]\naccess_key_secret = """\nhunter2 = hunter2""" x\n',
    ],
)
def test_a_secret_on_the_line_of_a_mistake_is_not_shown(tmp_path: Path, text: str):
    assert "hunter2" not in "\n".join(problems(tmp_path, text))


def test_secrets_are_in_no_representation(tmp_path: Path):
    text = '[credentials]\naccess_key_id = "i"\naccess_key_secret = "hunter2"\n[receivers.ops]\nurls = "json://hunter2@h"\n'
    settings = load_settings(written(tmp_path, text), environ=HOME)
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda file: None, "cannot read the configuration: No such file or directory"),
        (lambda file: file.mkdir(), "cannot read the configuration: Is a directory"),
        (lambda file: file.write_bytes(b"# text \xe9"), "not UTF-8 text: byte 7 is not valid"),
    ],
    ids=["missing", "folder", "latin-1"],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, make, expected: str):
    file = tmp_path / "triage.toml"
    make(file)
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(file, environ=HOME)
    assert str(caught.value) == f"{file}: {expected}"


def test_the_commented_file_changes_nothing_but_the_rules_and_names_every_setting(tmp_path: Path):
    text = commented_settings()
    settings = load_settings(written(tmp_path, text), environ=HOME)
    assert settings == load_settings(None, environ=HOME).model_copy(update={"rules": tmp_path / "rules"})


def test_the_examples_in_the_commented_file_are_valid(tmp_path: Path):
    lines = [line.removeprefix("# ") for line in commented_settings().splitlines() if not line.startswith("##")]
    text = "\n".join(lines)
    assert "type" in tomllib.loads(text)["sources"][1]
    settings = load_settings(written(tmp_path, text), environ=HOME)
    assert [source.type for source in settings.sources] == ["local", "smq", "reconcile"]


@pytest.mark.parametrize("listen", ["127.0.0.1:8020", "127.1.2.3:0", "[::1]:8020", "localhost:1"])
def test_on_loopback_the_operations_endpoint_needs_no_token(listen: str):
    assert load_settings(None, environ=HOME | {"TRIAGE_WEB__LISTEN": listen}).web.listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:8020", "[::]:8020", "10.0.0.1:8020", "[::ffff:127.0.0.1]:80"])
def test_an_address_that_others_reach_needs_a_token(tmp_path: Path, listen: str):
    (problem,) = problems(tmp_path, "", TRIAGE_WEB__LISTEN=listen)
    assert "can be reached by others; set token" in problem
    environ = HOME | {"TRIAGE_WEB__LISTEN": listen, "TRIAGE_WEB__TOKEN": "a-token-of-some-length"}
    web = load_settings(None, environ=environ).web
    assert web.listen == listen
    assert "a-token" not in repr(web)


@pytest.mark.parametrize(
    "listen",
    [
        "8020",
        ":8020",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:x",
        "::1:8020",
        "example.com:80",
        "http://127.0.0.1:80",
        "127.0.0.1:80/x",
        "u@127.0.0.1:80",
        "127.0.0.1:80?x",
        "127.0.0.1:80#x",
    ],
)
def test_what_is_no_address_to_listen_on_is_refused(tmp_path: Path, listen: str):
    assert problems(tmp_path, "", TRIAGE_WEB__LISTEN=listen) == [
        '$TRIAGE_WEB__LISTEN: web.listen: expected an IP address or localhost and a port, such as "127.0.0.1:8020"'
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        (45, 45),
        ("45", 45),
        (0, 0),
    ],
)
def test_durations_are_read(text: object, seconds: float):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "5 m", "-5s", -1, True, "m", "5y", None, [], float("nan"), 1e300, "9" * 400 + "d"]
)
def test_what_is_no_duration_is_refused(text: object):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_shown_duration_reads_as_itself(milliseconds: int):
    duration = timedelta(milliseconds=milliseconds)
    assert abs(parse_duration(show_duration(duration)) - duration) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("resize", ("", "resize", "")),
        ("media/resize", ("media", "resize", "")),
        ("resize@prod", ("", "resize", "prod")),
        ("media/resize@2", ("media", "resize", "2")),
    ],
)
def test_a_function_is_named_with_service_and_qualifier(text: str, parts: tuple[str, str, str]):
    assert tuple(read_function(text).values()) == parts
