"""Secrets planted wherever they can stand; what a run leaves behind, tells and shows has none of them in it.

Exempt is what must be byte for byte what came: the message itself. With ``encryption.keys`` it is sealed in the store; the
local queue holds it in the clear until it is decided (docs/explanation/security.md).
"""

import base64
import json
import re
import sqlite3
import subprocess
from contextlib import closing
from urllib.request import Request, urlopen

import pytest
from processes import TRIAGE, environment, started, triage
from test_daemon import receiver  # noqa: F401 - a fixture

PASSWORD = "PwOfReceiver8Kq2"
HOOK = "HookPathToken7Zx4"
HEADER = "HeaderToken5Rt9"
MAIL = "MailPassword3Lm6"
KEY_ID, KEY_SECRET = "LTAI5tOwnKeyIdOfTriage", "OwnKeySecretOfTriage4Yw"
WEB_TOKEN = "WebTokenOfTheEndpoint6Hd"
SEAL = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OURS = [PASSWORD, HOOK, HEADER, MAIL, KEY_SECRET, WEB_TOKEN, SEAL]

THEIR_KEY = "LTAI5tPlantedInAnError9"
THEIR_STS = "STS.PlantedTokenOfaRole1234567890"
THEIR_JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ"
THEIR_BEARER = "PlantedBearerToken0123456789"
IN_EVENT = "LTAI5tPlantedInAnEvent7"
IN_JUNK = "LTAI5tPlantedInAJunkMsg"
THEIRS = [THEIR_KEY, THEIR_STS, THEIR_JWT, THEIR_BEARER, IN_EVENT, IN_JUNK]

ERROR = (
    f"cannot read https://oss.example/x?OSSAccessKeyId={THEIR_KEY}: security token {THEIR_STS}, "
    f"session {THEIR_JWT}, Authorization: Bearer {THEIR_BEARER}"
)


def message(number: int) -> bytes:
    return json.dumps(
        {
            "timestamp": 1728465119433,
            "requestContext": {
                "requestId": f"1-planted-{number}",
                "functionArn": f"acs:fc:cn-hangzhou:1034354682:functions/planted-{number}",
                "condition": "InvocationError",
                "approximateInvokeCount": 1,
            },
            "requestPayload": json.dumps({"accessKeyId": IN_EVENT, "jwt": THEIR_JWT}),
            "responseContext": {"statusCode": 200, "functionError": "InvocationError"},
            "responsePayload": json.dumps({"errorMessage": ERROR, "errorType": f"Denied {THEIR_KEY}"}),
        }
    ).encode()


RULES = """
version: 1
rules:
  - id: again
    match: {function: planted-2}
    rerun: {after: 0s, max_attempts: 1, give_up_after: 1s}
    alert: {to: [hook, gone, mail], group_wait: 0s}
  - id: tell
    alert: {to: [hook, gone, mail], group_wait: 0s, template: ours}
"""
TEMPLATE = "{{ function }}: {{ error }}\n{% if function == 'planted-1' %}{{ samples[7].at }}{% endif %}\n"


@pytest.fixture
def left_behind(tmp_path, receiver):  # noqa: F811
    """Everything that a run tells, shows and stores, by where it was found."""
    state, rules = tmp_path / "state", tmp_path / "rules"
    rules.mkdir()
    (rules / "a.yaml").write_text(RULES)
    (rules / "ours.txt.j2").write_text(TEMPLATE)
    port = receiver.server_address[1]
    config = tmp_path / "triage.toml"
    config.write_text(
        f"""
state_dir = "{state}"
rules = "rules"
[receivers.hook]
urls = ["json://user:{PASSWORD}@127.0.0.1:{port}/{HOOK}?+X-Token={HEADER}"]
[receivers.gone]
urls = ["json://user:{PASSWORD}@127.0.0.1:1/{HOOK}?+X-Token={HEADER}"]
[receivers.mail]
urls = ["mailto://user:{MAIL}@127.0.0.1:1?from=a@example.com&to=b@example.com"]
[outbox]
retry_first = "100ms"
give_up_after = "1s"
[fc]
endpoint = "http://127.0.0.1:1"
[credentials]
access_key_id = "{KEY_ID}"
access_key_secret = "{KEY_SECRET}"
[web]
listen = "127.0.0.1:0"
token = "{WEB_TOKEN}"
[encryption]
keys = ["{SEAL}"]
[redaction]
detectors = ["access_key", "token"]
[quarantine]
to = ["hook", "gone"]
group_wait = "0s"
[log]
level = "debug"
"""
    )
    own = {"TRIAGE_CONFIG": str(config)}
    found: dict[str, str] = {}
    bodies = [message(1), message(2), message(3), f'{{"key": "{IN_JUNK}", "no": envelope'.encode()]
    for number, body in enumerate(bodies):
        (tmp_path / f"{number}.json").write_bytes(body)
        triage("queue", "send", tmp_path / f"{number}.json", state=state, **own)

    with started("run", state=state, **own) as running:
        url = running.until(lambda: re.search(r"http://127\.0\.0\.1:\d+", running.log))[0]
        # Two receivers are gone, for three functions; one of them for the quarantine, too.
        running.until(lambda: len(receiver.taken) >= 4 and given_up(state) >= 7, within=60)
        for path in ("metrics", "readyz", "healthz"):
            request = Request(f"{url}/{path}", headers={"Authorization": f"Bearer {WEB_TOKEN}"})
            with urlopen(request, timeout=10) as answer:
                found[path] = answer.read().decode()
        found["refused page"] = asked_without_token(url)
        assert running.stop() == 0
        found["log"], found["standard output"] = running.log, running.out
    found["notes"] = json.dumps(receiver.taken, ensure_ascii=False)
    groups = subprocess.run(
        [*TRIAGE, "alerts", "list", "--all", "--json"],
        env=environment(state, **own), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found["alerts list"] = groups.stdout + groups.stderr
    code = max(json.loads(groups.stdout), key=lambda group: group["messages"])["code"]
    for command in (
        ["status"],
        ["alerts", "show", code],
        ["receivers", "dead"],
        ["status", "--json"],
        ["failures", "list", "--all"],
        ["failures", "show", "1-planted-1"],
        ["failures", "show", "1-planted-2", "--json"],
        ["lineage", "1-planted-2"],
        ["quarantine", "list", "--json"],
        ["receivers", "list"],
        ["config", "show", "--json"],
        ["rules", "explain", "1-planted-1"],
        ["rules", "check"],
        ["alerts", "preview", "--receiver", "hook"],
        ["selfcheck"],
    ):
        done = subprocess.run(
            [*TRIAGE, *command], env=environment(state, **own), capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        found[" ".join(command)] = done.stdout + done.stderr
    for file in state.glob("triage.db*"):
        found[file.name] = file.read_bytes().decode("latin-1")
    return found, receiver, state


def given_up(state):
    """Notifications that are dead."""
    if not (state / "triage.db").exists():
        return 0
    with closing(sqlite3.connect(f"file:{state / 'triage.db'}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*) FROM outbox WHERE kind = 'notify' AND state = 'dead'").fetchone()[0]


def asked_without_token(url):
    try:
        with urlopen(f"{url}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except OSError as error:
        return str(error) + error.read().decode() if hasattr(error, "read") else str(error)


@pytest.mark.timeout(300)
def test_no_planted_secret_is_told_shown_or_stored(left_behind):
    found, server, _ = left_behind
    leaks = [
        (where, secret[:12], text[max(text.find(secret) - 80, 0) : text.find(secret) + 20])
        for where, text in found.items()
        for secret in (*OURS, *THEIRS)
        if secret in text
    ]
    assert leaks == []
    # It did happen, and is told, with what was taken out marked as such.
    assert "[access_key]" in found["notes"]
    assert "[token]" in found["notes"]
    assert "template ours" in found["log"]
    assert any("MESSAGE" in text for where, text in found.items() if where.startswith("alerts show"))
    assert "GIVEN UP" in found["receivers dead"]
    assert "triage_template_failures_total" in found["metrics"]
    assert len({note["title"] for note in server.taken}) >= 4
