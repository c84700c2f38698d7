"""A lineage told in the order in which it happened: pure, from what the store keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from triage.reruns.attempts import Attempt, attempts_of, error_of
from triage.reruns.lineage import hold_code
from triage.stores.story import Row, Story

_UNFINISHED: Final = ("pending", "unknown")


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened, or that is to come."""

    at: datetime
    what: str
    detail: str
    to_come: bool = False


def attempts(story: Story) -> list[Attempt]:
    """Every run, the first one included."""
    return attempts_of(story.members, story.links, story.outbox, last=(story.lineage or {}).get("attempt", 0))


def happenings(story: Story) -> list[Happening]:
    """All that happened, then what is to come; each in the order of time."""
    told: list[Happening] = [
        *(each for member in story.members for each in _of_member(member)),
        *(each for row in story.outbox for each in _of_row(row, story)),
        *(Happening(_at(row["at"]), _DEEDS.get(row["action"], str(row["action"])), _by(row)) for row in story.deeds),
        *(Happening(_at(row["at"]), "alert", _alert(row)) for row in story.alerts),
        *(Happening(_at(row["at"]), "told", _delivery(row)) for row in story.deliveries),
    ]
    return sorted(told, key=lambda each: (each.to_come, each.at, _ORDER.get(each.what, 5)))


_DEEDS: Final = {"rerun": "ordered", "plan": "ordered", "approve": "approved", "reject": "rejected"}
_ORDER: Final = {
    "failed": 0,
    "succeeded": 0,
    "ended": 0,
    "apart": 1,
    "decided": 1,
    "ordered": 2,
    "approved": 2,
    "alert": 6,
    "told": 7,
}
"""Of what happened at one instant, what comes first."""


def _of_member(member: Row) -> Iterator[Happening]:
    number = member["attempt"]
    run = f"re-run {number}" if number else "first run"
    if number and member["facts"].get("elsewhere"):
        run += ", made elsewhere,"
    what = {"failed": "failed", "succeeded": "succeeded"}.get(member["outcome"], "ended")
    error = f": {error_of(member)}" if what == "failed" else ""
    yield Happening(
        _at(member["received_at"]), what, f"{run} of {member['function']}, request {member['request_id']}{error}"
    )
    if apart := member["facts"].get("apart"):
        yield Happening(_at(member["decided_at"]), "apart", apart)
    if member["reason"] in ("healed", "succeeded"):
        return
    rule = f"rule {member['rule_id']}" if member["rule_id"] else "no rule"
    then = "; ".join(map(_effect, member["effects"])) or "nothing more"
    yield Happening(_at(member["decided_at"]), "decided", f"{rule} ({member['reason'].replace('_', ' ')}): {then}")


def _effect(effect: Mapping[str, Any]) -> str:
    match effect["kind"]:
        case "rerun":
            return f"re-run {effect['attempt']} at {_time(effect['due_at'])}"
        case "alert":
            return f"tell {', '.join(effect['to'])} ({effect['cause']})"
        case "hold":
            return f"hold until {_time(effect['due_at'])}: {effect['reason']}"
        case "resolve":
            return "ask how the task ended"
    return str(effect["kind"])


def _of_row(row: Row, story: Story) -> Iterator[Happening]:
    number, kind, state, note = row["payload"].get("attempt", 0), row["kind"], row["state"], row["note"]
    if state in _UNFINISHED:
        due = {
            "rerun": f"re-run {number}" + (", whether it was submitted is asked" if state == "unknown" else " is due"),
            "expect": f"the result of re-run {number} must be here, else somebody is told",
            "hold": f"somebody must have decided: triage approve {hold_code(story.root)}, or reject",
            "resolve": f"it is asked how re-run {number} ended",
        }.get(kind, kind)
        yield Happening(_at(row["due_at"]), "to come", f"{due}{f' ({note})' if note else ''}", to_come=True)
        return
    at = _at(row["settled_at"] or row["due_at"])
    origin = row["payload"].get("origin", "")
    if kind == "rerun" and state == "done":
        yield Happening(at, "submitted", f"re-run {number}{f', {origin},' if origin else ''} {note}; task {row['key']}")
    elif kind == "rerun" and state == "dead":
        yield Happening(at, "refused", f"re-run {number}{f', {origin}' if origin else ''}: {note}")
    elif state == "dead":
        yield Happening(at, "overdue", note)
    elif kind == "resolve" and state == "done":
        yield Happening(at, "asked", note)


def _by(row: Row) -> str:
    return f"{row['by']}: {row['reason']}"


def _alert(row: Row) -> str:
    rest = " (waits for its group)" if row["flush"] is None else ""
    if row["silence"] is not None:
        rest = f" (silence {row['silence']} kept it from everybody)"
    return f"{row['cause'].replace('_', ' ')}{f': {detail}' if (detail := row['detail']) else ''}{rest}"


def _delivery(row: Row) -> str:
    note = f" ({row['note']})" if row["note"] else ""
    return f"{row['receiver']}: {row['result']}{note}"


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time(text: str) -> str:
    return f"{_at(text):%Y-%m-%d %H:%M:%S}Z"


def as_json(story: Story) -> Mapping[str, Any]:
    """The whole of it."""
    own = story.lineage or {}
    rest: Sequence[str] = ("members", "outbox", "alerts", "deliveries", "deeds")
    return {
        "root": story.root,
        "state": own.get("state", ""),
        "lineage": story.lineage,
        "attempts": [asdict(each) for each in attempts(story)],
        "happenings": [asdict(each) for each in happenings(story)],
        **{name: getattr(story, name) for name in rest},
    }
