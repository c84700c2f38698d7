"""The schemas in an editor: what yaml-language-server, which most editors use, says of good and bad files.

It is not a Python package, so it is only used where it is installed: `npm install yaml-language-server`, then
TRIAGE_YAML_LS=.../node_modules/.bin/yaml-language-server, or have it on the PATH.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from triage.cli.rules import rules
from triage.rulefiles import default_rules_dir

SERVER = os.environ.get("TRIAGE_YAML_LS") or shutil.which("yaml-language-server")
pytestmark = pytest.mark.skipif(SERVER is None, reason="yaml-language-server is not installed (see TRIAGE_YAML_LS)")

RULES = "# yaml-language-server: $schema=rules.schema.json\n"
CASES = "# yaml-language-server: $schema=cases.schema.json\n"


class Server:
    """A language server on its standard input and output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder
        )

    def send(self, method: str, **message: object) -> None:
        data = json.dumps({"jsonrpc": "2.0", "method": method, **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        self.process.stdin.flush()

    def receive(self) -> dict:
        length = 0
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return json.loads(self.process.stdout.read(length))

    def wait(self, wanted) -> dict:
        while True:
            message = self.receive()
            if "id" in message and "method" in message:  # a question, such as for the settings
                items = message["params"].get("items", [])
                answer = {
                    "jsonrpc": "2.0",
                    "id": message["id"],
                    "result": [{"validate": True} if i["section"] == "yaml" else {} for i in items],
                }
                data = json.dumps(answer).encode()
                self.process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
                self.process.stdin.flush()
            elif wanted(message):
                return message

    def diagnostics(self, file: Path) -> list[tuple[int, str]]:
        """(line, message) of what the server finds in a file."""
        uri = file.as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": file.read_text()}
        self.send("textDocument/didOpen", params={"textDocument": document})
        told = self.wait(lambda m: m.get("method") == "textDocument/publishDiagnostics" and m["params"]["uri"] == uri)
        return [(each["range"]["start"]["line"] + 1, each["message"]) for each in told["params"]["diagnostics"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("editor")
    for name, option in (("rules", []), ("cases", ["--cases"])):
        (folder / f"{name}.schema.json").write_text(CliRunner().invoke(rules, ["schema", *option]).stdout)
    server = Server(folder)
    capabilities = {"workspace": {"configuration": True}, "textDocument": {"publishDiagnostics": {}}}
    server.send(
        "initialize", id=1, params={"processId": os.getpid(), "rootUri": folder.as_uri(), "capabilities": capabilities}
    )
    server.wait(lambda message: message.get("id") == 1)
    server.send("initialized", params={})
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.mark.parametrize("name", sorted(file.name for file in default_rules_dir().glob("*.yaml")))
def test_the_shipped_files_are_good(server, name):
    text = (default_rules_dir() / name).read_text()
    assert text.startswith(CASES if ".test." in name else RULES), "the schema is named in the first line"
    file = server.folder / name
    file.write_text(text)

    assert server.diagnostics(file) == []


def test_mistakes_in_rules_are_told_where_they_are(server):
    file = server.folder / "bad.yaml"
    file.write_text(
        RULES
        + """version: 1
rules:
  - id: a
    match: {functon: img-*}
    rerun:
      after: 5
      max_attempts: 1000
  - id: b
    alert: {severity: urgent}
"""
    )

    told = server.diagnostics(file)

    assert {line for line, _ in told} == {5, 7, 8, 10}, told
    assert any("functon" in message for _, message in told)


def test_mistakes_in_cases_are_told_where_they_are(server):
    file = server.folder / "bad.test.yaml"
    file.write_text(
        CASES
        + """version: 1
cases:
  - name: a
    envelope: {functon: img}
    expect: {rule: a}
  - name: b
    envelope: {function: img}
    expect: {alert: {severity: urgent}}
"""
    )

    told = server.diagnostics(file)

    assert {line for line, _ in told} == {5, 9}, told
