"""The metrics, as Prometheus' client library writes them. Pure.

The set of names is closed, and so is every label: their values come from the code or from the configuration, never from
messages. Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, 0.0.4). The reference,
docs/reference/metrics.md, is checked against `METRICS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from triage import line
from triage.changes import RowKind
from triage.decide import Reason
from triage.incident import GroupState
from triage.progress import Receiving, Work
from triage.reruns import budget, rate
from triage.reruns.breaker import BreakerState
from triage.reruns.gate import Gate, Safeguards, Standing
from triage.reruns.plan import ItemState, PlanState
from triage.states import State
from triage.stores import RulesState, Totals

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name, what it means, and its labels with their values (none: they come from the configuration)."""

    name: str
    type: Literal["counter", "gauge"]
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


INFO: Final = Metric(
    "triage_info",
    "gauge",
    "Always 1: the version that runs, and the first characters of the digest of the rules in force.",
    {"version": (), "rules": ()},
)
STORE_UP: Final = Metric(
    "triage_store_up", "gauge", "1 while the store answers, else 0; what is read from it is then absent."
)
ENVELOPES: Final = Metric(
    "triage_envelopes_total",
    "counter",
    "Messages received, by what became of them. From the store: it survives a restart.",
    {"result": ("decided", "duplicates", "conflicts", "quarantined")},
)
FAILURES: Final = Metric(
    "triage_failures",
    "gauge",
    "Failed invocations, by where they stand.",
    {"state": tuple(state.value for state in State if state is not State.NEW)},
)
OUTBOX: Final = Metric(
    "triage_outbox_rows",
    "gauge",
    "Things still to do, now or at a later time, by kind.",
    {"kind": tuple(kind.value for kind in RowKind)},
)
GATES: Final = Metric(
    "triage_gate_rows",
    "gauge",
    "Re-runs and notifications that wait, by the gate at which they do.",
    {"gate": tuple(gate.value for gate in Gate if gate is not Gate.PASSED)},
)
BREAKERS: Final = Metric(
    "triage_breakers",
    "gauge",
    "Functions whose breaker keeps their re-runs waiting, by its state.",
    {"state": tuple(state.value for state in BreakerState if state is not BreakerState.CLOSED)},
)
DELIVERIES: Final = Metric(
    "triage_deliveries_total",
    "counter",
    "Tries to notify, by result: sent, failed, perhaps arrived, given up, below the receiver's floor, gone as part of"
    " another message. From the store: it survives a restart.",
    {"result": line.DELIVERIES},
)
PLANS: Final = Metric(
    "triage_plans",
    "gauge",
    "Plans of re-runs, by where they stand.",
    {"state": tuple(state.value for state in PlanState if state is not PlanState.DRAFT)},
)
PLAN_ITEMS: Final = Metric(
    "triage_plan_items",
    "gauge",
    "Failures in plans that are applied and not over, by what came of them.",
    {"state": tuple(state.value for state in ItemState)},
)
ALERT_GROUPS: Final = Metric(
    "triage_alert_groups",
    "gauge",
    "Alert groups that wait for their first look or are open, by where they stand.",
    {"state": tuple(state.value for state in GroupState if state is not GroupState.RESOLVED)},
)
RULES_REFUSED: Final = Metric(
    "triage_rules_refused",
    "gauge",
    "1 while the rule files cannot be used and the last good set stays in force, else 0.",
)
RULES_LOADED: Final = Metric(
    "triage_rules_loaded_timestamp_seconds", "gauge", "When the rules in force came into force, as Unix time."
)
RECEIVED: Final = Metric(
    "triage_source_messages_total", "counter", "Messages received since the start, by source.", {"source": ()}
)
RECEIVE_ERRORS: Final = Metric(
    "triage_source_errors_total", "counter", "Receive requests that failed since the start, by source.", {"source": ()}
)
RECEIVED_AT: Final = Metric(
    "triage_source_last_receive_timestamp_seconds",
    "gauge",
    "When the source last answered, with messages or without, as Unix time; absent until it has.",
    {"source": ()},
)
WAITING: Final = Metric(
    "triage_stage_waiting_seconds",
    "gauge",
    "How long a stage has had work without getting on with it; a few seconds at most when all is well.",
    {"stage": ()},
)
LAG: Final = Metric(
    "triage_source_lag_seconds",
    "gauge",
    "How long the oldest message of the last answer had waited in its queue; absent where the queue does not tell.",
    {"source": ()},
)
OLDEST: Final = Metric(
    "triage_source_oldest_message_seconds",
    "gauge",
    "Age of the oldest message that is received and not dealt with yet; 0 when there is none.",
    {"source": ()},
)
OVERDUE: Final = Metric(
    "triage_outbox_overdue_seconds",
    "gauge",
    "For how long the oldest thing to do has been due, by kind; 0 when nothing is due yet.",
    {"kind": tuple(kind.value for kind in RowKind)},
)
COMMITS: Final = Metric("triage_commits_total", "counter", "Batches committed since the start.")
COMMITTED: Final = Metric(
    "triage_commit_messages_total", "counter", "Messages in these batches; by the number of batches, the mean size."
)
COMMIT_TIME: Final = Metric(
    "triage_commit_seconds_total", "counter", "Time from reading a batch to its commit, in all, since the start."
)
DECISIONS: Final = Metric(
    "triage_decisions_total",
    "counter",
    "Decisions since the start, by the rule that decided (empty: none did) and why.",
    {"rule": (), "reason": tuple(each.value for each in Reason if each not in (Reason.DUPLICATE, Reason.CONFLICT))},
)
RULE_ERRORS: Final = Metric(
    "triage_rule_errors_total",
    "counter",
    "Conditions that could not be evaluated since the start, by rule.",
    {"rule": ()},
)
RULES_READ: Final = Metric(
    "triage_rules_reloads_total",
    "counter",
    "Readings of the rule files after the start, by result.",
    {"result": ("taken", "same", "refused")},
)
NOTIFIED: Final = Metric(
    "triage_notifications_total",
    "counter",
    "Notifications since the start, by receiver and result: sent, a try that failed, perhaps arrived, given up.",
    {"receiver": (), "result": ("sent", "failed", "unknown", "dead")},
)
BUDGET: Final = Metric(
    "triage_function_budget_reruns",
    "gauge",
    "Re-runs that a function may have now. Of fifty functions at most: first those whose breaker is not closed, then "
    "those that have drawn on their budget last.",
    {"function": ()},
)
RATE: Final = Metric(
    "triage_function_rate_per_second",
    "gauge",
    "Re-runs a second that a function may have now; fewer than configured after a refusal or an open breaker. Of the "
    "same functions.",
    {"function": ()},
)
BREAKER: Final = Metric(
    "triage_function_breaker",
    "gauge",
    "The breaker of a function: 0 closed, 1 half open, 2 open. Of the same functions.",
    {"function": ()},
)
TEMPLATES: Final = Metric(
    "triage_template_failures_total",
    "counter",
    "Messages since the start for which a template could not be used, by its name; they were sent all the same.",
    {"template": ()},
)
RERUNS: Final = Metric(
    "triage_reruns_total",
    "counter",
    "Steps of re-runs since the start: what the provider said of a submit, that none was made in time since a gate was "
    "closed (given_up), and what came of the re-run.",
    {"result": ("submitted", "postponed", "unknown", "refused", "given_up", "succeeded", "failed", "overdue")},
)
METRICS: Final = (
    INFO,
    STORE_UP,
    ENVELOPES,
    FAILURES,
    OUTBOX,
    GATES,
    BREAKERS,
    BUDGET,
    RATE,
    BREAKER,
    DELIVERIES,
    PLANS,
    PLAN_ITEMS,
    ALERT_GROUPS,
    RULES_REFUSED,
    RULES_LOADED,
    RECEIVED,
    RECEIVE_ERRORS,
    RECEIVED_AT,
    WAITING,
    LAG,
    OLDEST,
    OVERDUE,
    COMMITS,
    COMMITTED,
    COMMIT_TIME,
    DECISIONS,
    RULE_ERRORS,
    RULES_READ,
    NOTIFIED,
    TEMPLATES,
    RERUNS,
)
"""All of them, in the order in which they are written."""


@dataclass(frozen=True, slots=True)
class View:
    """What the metrics are made of. ``totals`` is None while the store does not answer, ``state`` also before a rule
    set was ever kept.
    """

    version: str
    rules: str
    totals: Totals | None
    state: RulesState | None
    sources: Mapping[str, Receiving]
    waiting: Mapping[str, timedelta]
    at: datetime
    work: Work
    oldest: Mapping[str, datetime | None] = field(default_factory=dict)
    guards: Safeguards = Safeguards()
    """What the gates go by: what a function has left depends on it."""
    seen_at: datetime | None = None
    """When ``totals`` was read, if that was before ``at``."""


_Samples = list[tuple[tuple[str, ...], float]]


def metrics_text(view: View) -> str:
    """The metrics in the text format, those without a value left out."""
    from prometheus_client.exposition import generate_latest  # noqa: PLC0415 - 80 ms, which only who is asked needs

    return generate_latest(_Collected(_values(view))).decode()


@dataclass(frozen=True, slots=True)
class _Collected:
    """What was found, as the client library takes it."""

    values: Mapping[str, _Samples]

    def collect(self) -> Iterator[Family]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        families = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        for metric in METRICS:
            if samples := self.values.get(metric.name):
                family = families[metric.type](metric.name, metric.help, labels=tuple(metric.labels))
                for texts, number in samples:
                    family.add_metric(texts, number)
                yield family


def _values(view: View) -> dict[str, _Samples]:
    sources, work = view.sources.items(), view.work
    values: dict[str, _Samples] = {
        INFO.name: [((view.version, view.rules[:12]), 1)],
        STORE_UP.name: [((), view.totals is not None)],
        RECEIVED.name: [((name,), source.messages) for name, source in sources],
        RECEIVE_ERRORS.name: [((name,), source.errors) for name, source in sources],
        RECEIVED_AT.name: [((name,), at.timestamp()) for name, source in sources if (at := source.received_at)],
        WAITING.name: [((name,), waiting.total_seconds()) for name, waiting in view.waiting.items()],
        LAG.name: [((name,), source.lag.total_seconds()) for name, source in sources if source.lag is not None],
        OLDEST.name: [
            ((name,), max((view.at - (view.oldest.get(name) or view.at)).total_seconds(), 0)) for name, _ in sources
        ],
        COMMITS.name: [((), work.commits)],
        COMMITTED.name: [((), work.messages)],
        COMMIT_TIME.name: [((), work.seconds)],
        DECISIONS.name: [*work.decisions.items()],
        RULE_ERRORS.name: [((rule,), number) for rule, number in work.rule_errors.items()],
        RULES_READ.name: [((result,), work.rules_read[result]) for result in RULES_READ.labels["result"]],
        NOTIFIED.name: [*work.notified.items()],
        TEMPLATES.name: [((name,), number) for name, number in work.templates.items()],
        RERUNS.name: [((result,), work.reruns[result]) for result in RERUNS.labels["result"]],
    }
    if (sums := view.totals) is not None:
        results = {name: getattr(sums, name) for name in ENVELOPES.labels["result"]}
        for metric, counts in (
            (ENVELOPES, results),
            (FAILURES, sums.states),
            (OUTBOX, sums.outbox),
            (GATES, sums.gates),
            (BREAKERS, sums.breakers),
            (DELIVERIES, sums.deliveries),
            (PLANS, sums.plans),
            (PLAN_ITEMS, sums.plan_items),
            (ALERT_GROUPS, sums.groups),
        ):
            (known,) = metric.labels.values()
            values[metric.name] = [((value,), counts.get(value, 0)) for value in known]
        due = sums.outbox_due
        seen_at = view.seen_at or view.at
        values[OVERDUE.name] = [
            ((kind,), max((seen_at - due.get(kind, seen_at)).total_seconds(), 0)) for kind in OVERDUE.labels["kind"]
        ]
        values |= _functions(sums.standings, view.guards, seen_at)
    if view.state is not None:
        values[RULES_REFUSED.name] = [((), bool(view.state.problems))]
        values[RULES_LOADED.name] = [((), view.state.loaded_at.timestamp())]
    return values


_BREAKER_STATES: Final = (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)


def _functions(standings: Sequence[Standing], guards: Safeguards, at: datetime) -> dict[str, _Samples]:
    names = [(standing.function,) for standing in standings]
    left = (int(budget.left(each.budget, guards.budget, now=at)) for each in standings)
    shares = (rate.share_at(each.pace, guards.function_rate, at) for each in standings)
    states = (_BREAKER_STATES.index(each.breaker.state) for each in standings)
    return {
        BUDGET.name: list(zip(names, left, strict=True)),
        RATE.name: [(name, guards.function_rate.per_second * share) for name, share in zip(names, shares, strict=True)],
        BREAKER.name: list(zip(names, states, strict=True)),
    }
