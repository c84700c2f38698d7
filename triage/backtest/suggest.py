"""From real failures to a rule that takes them, and the test case that shows it. Pure.

The rule matches what all of the failures have in common: function, condition, error type, and the longest piece of the
message that is no variable part (`triage.fingerprint.mask`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from triage.fingerprint import mask
from triage.states import State
from triage.stores import FailureRow

_SHORTEST: Final = 4
"""Letters without which a piece of a message says nothing."""
_LONGEST: Final = 200
"""Characters of a piece that are enough."""
_SHOWN: Final = 1000
"""Characters of a message in a test case."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A rule file with one rule, and the file with its test case."""

    rule_id: str
    rules: str
    cases: str


def suggest(failures: Sequence[FailureRow], *, taken: Collection[str]) -> Suggestion:
    """A rule for failures of one group, the newest first; there must be one. ``taken``: ids that are in use.

    It runs the task again where at least half of the failures were healed by that, and alerts otherwise.
    """
    newest = failures[0]
    message = _common_piece([failure.error_message for failure in failures])
    kind = newest.error_type if newest.error_type != newest.condition else ""
    rule_id = _rule_id(f"{newest.function} {message or kind or newest.condition or 'failed'}", taken)
    match = [
        *_line("function", newest.function),
        *_line("condition", newest.condition),
        *_group("error", [*_line("type", kind), *([f"message: {_quoted(message)}"] if message else [])]),
    ]
    rules = [
        *_about(failures),
        "version: 1",
        "",
        "rules:",
        f"  - id: {rule_id}",
        "    # owner: who is responsible",
        "    # runbook: https://where.it.says/what-to-do",
        *([] if match else ["    # The failures have nothing in common that a rule can match: say what."]),
        "    match:" if match else "    match: {}",
        *(f"      {line}" for line in match),
        *(f"    {line}" for line in _action(failures)),
    ]
    cases = [
        "version: 1",
        "",
        "cases:",
        f"  - name: {_quoted(f'{newest.function}: {message or kind or newest.condition}'[:_LONGEST])}",
        "    envelope:",
        f"      function: {_quoted(newest.function)}",
        *([f"      condition: {_quoted(newest.condition)}"] if newest.condition else []),
        *(f"      {line}" for line in _group("error", _error(newest, kind, message))),
        "    expect:",
        f"      rule: {rule_id}",
    ]
    return Suggestion(rule_id, "\n".join(rules) + "\n", "\n".join(cases) + "\n")


def _about(failures: Sequence[FailureRow]) -> list[str]:
    first, last = (f"{failure.received_at:%Y-%m-%d %H:%M}" for failure in (failures[-1], failures[0]))
    states = ", ".join(f"{count} {state}" for state, count in Counter(each.state for each in failures).most_common())
    rules = ", ".join(rule or "no rule" for rule, _ in Counter(each.rule_id for each in failures).most_common(3))
    return [
        f"# From {len(failures)} of group {failures[0].fingerprint}, {first} to {last} UTC:",
        f"# {states}. Decided by {rules}.",
    ]


def _action(failures: Sequence[FailureRow]) -> list[str]:
    stories = {failure.root: failure.state for failure in failures}
    healed = sum(state == State.HEALED for state in stories.values())
    if healed * 2 < len(stories):
        return ["alert:", "  group_by: [function, condition]"]
    return [
        f"# {healed} of {len(stories)} were healed by running them again.",
        "rerun:",
        "  after: 2m",
        "  max_attempts: 3",
        "alert:",
        "  on: [exhausted, refused, overdue, unknown]",
    ]


def _error(newest: FailureRow, kind: str, message: str) -> list[str]:
    shown = newest.error_message[:_SHOWN]
    if message not in shown:
        shown = message
    return [*([f"type: {_quoted(kind)}"] if kind else []), *([f"message: {_quoted(shown)}"] if shown else [])]


def _line(key: str, value: str) -> list[str]:
    """A clause that holds for exactly this text; none where it would be read as a pattern."""
    is_pattern = re.search(r"[*?]", value) or (len(value) > 2 and value[0] == value[-1] == "/")
    return [f"{key}: {_quoted(value)}"] if value and not is_pattern else []


def _group(key: str, lines: Sequence[str]) -> list[str]:
    return [f"{key}:", *(f"  {line}" for line in lines)] if lines else []


def _common_piece(messages: Sequence[str]) -> str:
    """The longest text without variable parts that is in every message; empty when there is none worth having."""
    # Half of a word says less than it seems to: "bucket b" of "bucket b-77" is in "bucket basement", too.
    return _longest_of(messages, r"\S*<[a-z]+>\S*| \.\.\. ") or _longest_of(messages, r"<[a-z]+>| \.\.\. ")


def _longest_of(messages: Sequence[str], between: str) -> str:
    pieces = {piece.strip() for message in messages[:1] for piece in re.split(between, mask(message))}
    for piece in sorted(pieces, key=lambda piece: (-len(piece), piece)):
        short = piece if len(piece) <= _LONGEST else piece[:_LONGEST].rpartition(" ")[0] or piece[:_LONGEST]
        short = short.strip(" /:,;=-")
        if sum(map(str.isalpha, short)) >= _SHORTEST and all(short in message for message in messages):
            return short
    return ""


def _rule_id(text: str, taken: Collection[str]) -> str:
    base = "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:60].strip("-") or "failed"
    number = 1
    while (rule_id := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return rule_id


def _quoted(text: str) -> str:
    """A text in double quotes, as YAML has it; what cannot be seen, or moves the cursor, is an escape."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in written)
