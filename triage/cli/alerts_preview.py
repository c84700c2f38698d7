"""``triage alerts preview``: what a message says, without sending it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triage.cli.output import print_json, settings_option
from triage.cli.storage import ask
from triage.errors import RulesInvalid

if TYPE_CHECKING:
    from triage.alerts.compose import Texts
    from triage.alerts.wording import Format
    from triage.rules.model import RuleSet
    from triage.settings import Settings
    from triage.views import GroupView

_FORMS = ("text", "markdown", "html")


@click.command()
@click.argument("what", metavar="[GROUP|FILE]", default="")
@click.option("--receiver", metavar="NAME", default="default", show_default=True, help="As this one would get it.")
@click.option("--template", metavar="NAME|FILE", default="", help="By this template, instead of those in force.")
@click.option("--format", "form", type=click.Choice(_FORMS), help="Default: what the receiver shows; else text.")
@click.option("--rules", "path", type=click.Path(exists=True, path_type=Path), help="With these rules.")
@click.option("--json", "as_json", is_flag=True, help="Print title and all forms as JSON.")
@settings_option
def preview(
    *, settings: Settings, what: str, receiver: str, template: str, form: str | None, path: Path | None, as_json: bool
) -> None:
    """Show what a message says, without sending it.

    GROUP is the key of an alert group, or its first characters: what waits in it is told, else what its last message
    told. The short code of a message, such as ab12cd34, or its beginning will do. FILE (- is standard input) holds one
    result message; it is decided by the rules as if it came now. Without either an example is shown.

    The exit code is 1 when a template could not be used; the message is shown as it would be sent then.
    """
    from triage.alerts.wording import Format  # noqa: PLC0415

    if receiver not in settings.receivers:
        known = ", ".join(sorted(settings.receivers))
        raise click.UsageError(f"no receiver is named {receiver!r}; there are: {known}")
    rules = _rules(settings, path)
    shown = [Format(form)] if form else _shown(settings, receiver)
    wanted = list(Format) if as_json else shown
    texts, failed = [], False
    for view, code in _views(settings, what, rules):
        text, notes = _composed(settings, rules, view, code, receiver=receiver, template=template, forms=wanted)
        failed = failed or notes
        texts.append(text)
    if as_json:
        print_json([{"title": each.title, "text": each.body, **each.forms} for each in texts])
    else:
        _print(texts, shown)
    if failed:
        raise SystemExit(1)


def _rules(settings: Settings, path: Path | None) -> RuleSet:
    from triage.rulefiles import default_rules_dir, located, read_rules  # noqa: PLC0415
    from triage.rules.source import load_rules  # noqa: PLC0415

    where = path or settings.rules or default_rules_dir()
    try:
        return load_rules(read_rules(where))
    except RulesInvalid as error:
        raise RulesInvalid([located(problem, where) for problem in error.problems]) from None


def _shown(settings: Settings, receiver: str) -> list[Format]:
    """What the services of a receiver show."""
    from triage.alerts.wording import Format  # noqa: PLC0415
    from triage.configuration import receivers_of  # noqa: PLC0415
    from triage.notify import AppriseNotifier  # noqa: PLC0415

    forms = AppriseNotifier.load({receiver: receivers_of(settings)[receiver]}).forms(receiver)
    return sorted(forms) or [Format.TEXT]


def _views(settings: Settings, what: str, rules: RuleSet) -> Sequence[tuple[GroupView, str]]:
    """What is told, each with its short code."""
    from triage.incident import incident_code  # noqa: PLC0415

    if not what:
        return [(_example(), "ab12cd34")]
    if what == "-" or Path(what).is_file():
        views = _decided(settings, what, rules)
        if not views:
            raise click.ClickException(
                "nobody would be told of this result, not at once: triage rules explain says why"
            )
        return [(view, incident_code(view.group.key, 1)) for view in views]
    found = ask(settings, lambda store: store.previewed(what))
    if found is None:
        raise click.ClickException(
            f"no file, no single alert group and no message that is kept is named {what!r}. The code of a message is in"
            " its title: #ab12cd34"
        )
    return [(found.view, found.view.incident.code or incident_code(found.view.group.key, 1, found.view.taken))]


def _decided(settings: Settings, name: str, rules: RuleSet) -> list[GroupView]:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.configuration import labels_of  # noqa: PLC0415
    from triage.decide import decide  # noqa: PLC0415
    from triage.effects import decided  # noqa: PLC0415
    from triage.envelope import parse_body  # noqa: PLC0415
    from triage.facts import Facts, arrival  # noqa: PLC0415
    from triage.views import GroupView, WaitingAlert  # noqa: PLC0415

    with click.open_file(name, "rb") as stream:
        envelope = parse_body(stream.read())
    now = SystemClock().now()
    labels = labels_of(settings.labels)(envelope.function.label)
    came = arrival(envelope, source="file", message_id=name, received_at=now, enqueued_at=None, labels=labels)
    alerts = decided(came, decide(came, Facts(), rules, now=now)).changes.alerts
    return [
        GroupView(
            group=alert.group,
            flushes=0,
            told=0,
            first_at=now,
            last_at=now,
            causes={alert.cause: 1},
            samples=(WaitingAlert(alert.request_id, alert.cause, alert.detail, now, 0),),
            last_id=1,
        )
        for alert in alerts
    ]


def _example() -> GroupView:
    from triage.alerts.example import example  # noqa: PLC0415
    from triage.clock import SystemClock  # noqa: PLC0415

    return example(SystemClock().now())


def _composed(
    settings: Settings,
    rules: RuleSet,
    view: GroupView,
    code: str,
    *,
    receiver: str,
    template: str,
    forms: Sequence[Format],
) -> tuple[Texts, bool]:
    """The message, and whether a template failed on the way."""
    from triage.composing import Composer  # noqa: PLC0415
    from triage.configuration import templates_of  # noqa: PLC0415
    from triage.progress import Work  # noqa: PLC0415
    from triage.templating.samples import form_of_file  # noqa: PLC0415

    templates: dict[str, str] = templates_of(settings)
    if template:
        file = Path(template)
        if file.is_file():
            _, form = form_of_file(file.name) or ("", "text")
            rules = replace(rules, templates={**rules.templates, template: {form: _text(file)}})
        elif template not in rules.templates:
            known = ", ".join(sorted(rules.templates)) or "none"
            raise click.UsageError(
                f"no template and no file is named {template!r}; beside the rules there are: {known}"
            )
        rules = replace(rules, rules=())  # whose templates would come first
        templates[receiver] = template
    work = Work()
    composer = Composer(
        forms=lambda _: forms, rules=lambda: rules, templates=templates, sites=settings.links.sites, work=work
    )
    return composer(view, code, receiver), bool(work.templates)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise click.ClickException(f"{file}: not UTF-8; save the file as UTF-8") from None


def _print(texts: Sequence[Texts], forms: Sequence[Format]) -> None:
    from triage.alerts.wording import Format  # noqa: PLC0415
    from triage.log import printable  # noqa: PLC0415

    parts = [
        (each.title, str(form), each.body if form is Format.TEXT else each.forms[form])
        for each in texts
        for form in forms
    ]
    for number, (title, form, body) in enumerate(parts):
        if number:
            click.echo()
        click.echo(f"--- {form}" if len(parts) > 1 else "", nl=len(parts) > 1)
        click.echo(printable(title))
        click.echo()
        for line in body.split("\n"):
            click.echo(printable(line))
