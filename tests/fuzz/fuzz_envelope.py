"""Fuzzes the reader of message bodies and the way of what it reads to the store: see README.md.

Whatever the bytes, they are an envelope or refused with a known reason, at the same place each time. Every envelope can
be decided, stored, read again from what is stored of it, and told.
"""

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

with atheris.instrument_imports(include=["triage"]):
    from triage.alerts.render import printable
    from triage.decide import decide
    from triage.effects import decided
    from triage.envelope import REASONS, Destination, parse_body
    from triage.errors import InvalidEnvelope
    from triage.facts import Facts
    from triage.fingerprint import mask
    from triage.rulefiles import default_rules_dir, read_rules
    from triage.rules.match import trace
    from triage.rules.model import SourceText
    from triage.rules.source import load_rules
    from triage.stores.records import envelope_record
    from triage.subject import Subject

import make  # the rest of the tests is not instrumented

RULES = load_rules(
    [
        SourceText("00.yaml", "version: 1\nrules:\n- {id: e, alert: {}, when: 'payload == payload && has(payload.a)', mode: shadow}\n"),
        *read_rules(default_rules_dir()),
    ]
)  # fmt: skip
ROLES = tuple(Destination)
WHOLE = 2
INSIDE = ("payload", "responsePayload", "condition", "error")
"""Most inputs are only a part of a body that is right: else few would come so far."""


def one_input(data: bytes) -> None:
    role, kind = (ROLES[data[0] % len(ROLES)], data[0] // 4 % (WHOLE + len(INSIDE))) if data else (Destination.BOTH, 0)
    raw = data[1:]
    if kind >= WHOLE:
        raw = make.body(**{INSIDE[kind - WHOLE]: raw.decode("utf-8", "replace")})
    try:
        envelope = parse_body(raw, destination=role)
    except InvalidEnvelope as error:
        assert error.reason in REASONS
        assert len(str(error)) < 4000
        return
    assert parse_body(raw, destination=role) == envelope
    assert parse_body(envelope.body, destination=role) == envelope, "what is stored is read as what came"
    arrival = make.arrived(envelope)
    decision = decide(arrival, Facts(), RULES, now=make.NOW)
    assert decide(arrival, Facts(), RULES, now=make.NOW) == decision
    for value in envelope_record(decided(arrival, decision)):
        if isinstance(value, str):
            value.encode()
        assert not isinstance(value, int) or abs(value) < 1 << 64
    trace(RULES.rules, Subject(arrival, Facts(), now=make.NOW))
    assert len(mask(envelope.error.message)) < 1000
    assert printable(envelope.error.message, 500).isprintable()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
