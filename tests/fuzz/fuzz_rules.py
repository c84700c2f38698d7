"""Fuzzes the reader of rule files and what it makes of them: see README.md.

Whatever the text, it is loaded or refused with reasons that stand somewhere in it. What is loaded can be asked about any
event, and explained, and tells the same twice.
"""

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

with atheris.instrument_imports(include=["triage"]):
    from triage.errors import RulesInvalid
    from triage.facts import Facts
    from triage.rules.match import matching, trace
    from triage.rules.model import SourceText
    from triage.rules.source import load_rules
    from triage.subject import Subject

import make  # the rest of the tests is not instrumented

EVENTS = ('{"a": {"b": [1, "x", null]}, "items": [{"kind": "video", "n": 1.5}], "e": true}', "[]", "no JSON", "")
SUBJECTS = [Subject(make.arrived(make.envelope(payload=event)), Facts(), now=make.NOW) for event in EVENTS]

# Half of the inputs are only an expression or a match, in a file that is right: else few would come so far.
FRAMES = ("{}", "{}", "version: 1\nrules:\n- id: a\n  alert: {{}}\n  when: >-\n    {}", "version: 1\nrules:\n- id: a\n  alert: {{}}\n  match: {{{}}}")  # fmt: skip


def one_input(data: bytes) -> None:
    frame = FRAMES[data[0] % len(FRAMES)] if data else "{}"
    inside = data[1:].decode("utf-8", "replace")
    text = frame.format(inside.replace("\n", "\n    ") if "when" in frame else inside)
    try:
        rules = load_rules([SourceText("r.yaml", text)])
    except RulesInvalid as error:
        lines = text.count("\n") + 1
        for problem in error.problems:
            assert 0 <= problem.line <= lines, problem
            assert len(str(problem)) < 4000, problem
            assert str(problem).replace("\n", "").isprintable(), problem
        return
    for subject in SUBJECTS:
        assert matching(rules, subject) == matching(rules, subject)
        trace(rules.rules, subject)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
