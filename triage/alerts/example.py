"""A group of alerts as they come, for previews and pictures. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from triage.changes import AlertGroup
from triage.rules.model import Cause
from triage.states import State
from triage.views import GroupView, WaitingAlert


def example(now: datetime) -> GroupView:
    """A function that times out, told while it still does."""
    labels = {
        "function": "img-resize",
        "region": "cn-hangzhou",
        "condition": "InvocationError",
        "error_type": "TimeoutError",
        "error_message": "Function timed out after 60 seconds (maxMemoryUsage: 512MB)",
        "fingerprint": "v1-4c1f0b6d2a97",
        "failure_group": "v1-4c1f0b6d2a97",
        "rule": "images",
        "owner": "media-team",
        "runbook": "https://wiki.example/runbooks/img-resize",
        "labels.logstore": "serverless-media/default-logs",
        "labels.team": "media",
    }
    group = AlertGroup("example", ("default",), "critical", labels, timedelta(seconds=30), timedelta(minutes=5))
    samples = tuple(
        WaitingAlert(f"1-670648a1-15197d0b-d0771022{number:04x}", Cause.EXHAUSTED, "", now - timedelta(seconds=ago), 2)
        for number, ago in ((0x2F9D, 4), (0x1C06, 11), (0x0AB3, 19))
    )
    return GroupView(
        group=group,
        flushes=2,
        told=212,
        first_at=now - timedelta(minutes=5),
        last_at=now - timedelta(seconds=4),
        causes={Cause.EXHAUSTED: 1200, Cause.REFUSED: 34},
        samples=samples,
        last_id=1,
        silenced=18,
        states={State.ALERTING: 1234, State.ALERTED: 212, State.SILENCED: 18, State.HEALED: 40},
    )
