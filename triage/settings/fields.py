"""Every setting with its default. Under each: what it is, its unit, why this default, how to switch it off."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from triage.alerts.delivery import Retries
from triage.settings.group import Group
from triage.settings.links import LinkSettings
from triage.settings.maintenance import MaintenanceSettings
from triage.settings.outbound import OutboundSettings
from triage.settings.privacy import EncryptionSettings, RedactionSettings
from triage.settings.receivers import ReceiverSettings
from triage.settings.reruns import RerunSettings
from triage.settings.sources import LocalSource, ReconcileSource, SourceSettings
from triage.settings.storms import StormSettings
from triage.settings.traces import TracesSettings
from triage.settings.values import (
    Duration,
    Name,
    Names,
    Positive,
    Url,
    bearer_token,
    host_and_port,
    listen_address,
    lower_case,
    not_empty,
    show_duration,
)
from triage.settings.watching import ArrivalSettings, DigestSettings, HeartbeatSettings


class QueueSettings(Group):
    """The local queue: a durable queue in one SQLite file, for use without a cloud account."""

    path: Path = Path("queue.db")
    """Where the queue file is; relative to ``state_dir``."""
    name: Name = "default"
    """Queue that ``triage queue send`` and the other queue commands use when none is named."""
    visibility_timeout: Positive = timedelta(seconds=30)
    """How long a received message stays hidden before it is delivered again. 30 s is also SMQ's default."""


class StoreSettings(Group):
    """The store: envelopes, decisions, lineages and the outbox, in one SQLite file."""

    path: Path = Path("triage.db")
    """Where the store is; relative to ``state_dir``. Must be on a local disk: SQLite's locks need it."""


class FcSettings(Group):
    """Function Compute (FC), which is asked to run tasks again."""

    endpoint: Url | None = None
    """Address to use instead of the one that follows from account and region: an emulator, a proxy, an internal
    address. Unset = the public address of the function's own account and region."""
    region: str = ""
    """Region for functions whose ARN leaves it empty, such as ``cn-hangzhou``."""
    account: str = ""
    """Account id for functions whose ARN leaves it empty."""
    timeout: Positive = timedelta(seconds=10)
    """Time limit of one API request. After it the outcome counts as unknown and is asked for, never guessed."""


class CredentialSettings(Group):
    """The access key for SMQ and FC. All empty = the vendor's chain: environment, profile file, OIDC role, RAM role."""

    access_key_id: str = ""
    """Access key id."""
    access_key_secret: SecretStr = SecretStr("")
    """Access key secret. Better in a secret file than in the configuration."""
    security_token: SecretStr = SecretStr("")
    """Security token (STS) when the access key is a temporary one."""

    @model_validator(mode="after")
    def _complete(self) -> CredentialSettings:
        if bool(self.access_key_id) != bool(self.access_key_secret.get_secret_value()):
            raise ValueError(
                "access_key_id and access_key_secret belong together; leave both empty for the vendor's chain"
            )
        if self.security_token.get_secret_value() and not self.access_key_id:
            raise ValueError("security_token needs access_key_id and access_key_secret")
        return self


def _function_pattern(value: str) -> str:
    from triage.rules.mistakes import Mistakes  # noqa: PLC0415 - regular expressions are slow to import
    from triage.rules.values import function_name  # noqa: PLC0415

    try:
        function_name(value)
    except Mistakes as error:
        raise ValueError(str(error)) from None
    return value


class LabelSettings(Group):
    """Labels for functions, which rules can look at. An entry adds to those before it, and changes none of them."""

    function: Annotated[str, Field(min_length=1), AfterValidator(_function_pattern)]
    """Which functions, as in ``match`` of a rule: a name, a pattern such as ``img-*``, ``service/name``, or a regular
    expression between slashes."""
    set: dict[Name, str]
    """Names and texts of the labels."""


class OutboxSettings(Group):
    """The outbox: everything that is done after a decision, such as re-runs and notifications."""

    lease: Positive = timedelta(minutes=2)
    """How long a claimed row is ours. Must be longer than any one action takes; after a crash it is the wait until the
    row is taken up again."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    """Rows acted on at the same time."""
    retry_first: Positive = timedelta(seconds=5)
    """Delay after the first failed try of a row."""
    retry_factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    """Each further delay is this many times longer. ``1`` = always the same."""
    retry_max: Positive = timedelta(minutes=10)
    """The longest delay between two tries."""
    give_up_after: Positive = timedelta(hours=24)
    """A notification that could not be delivered for this long is dead; ``triage status`` counts it."""

    @property
    def retries(self) -> Retries:
        """The same, as notifications go by."""
        return Retries(self.retry_first, self.retry_factor, self.retry_max, self.give_up_after)


class ConsumerSettings(Group):
    """The consumer: receives, decides, commits, acknowledges."""

    batch: Annotated[int, Field(ge=1, le=4096)] = 256
    """Most envelopes per transaction. Large batches make durable commits cheap; nothing waits for a batch to fill."""
    grace: Duration = timedelta(seconds=20)
    """How long work in hand may take to finish after SIGTERM. What is not finished by then comes again. ``0s`` = at
    once."""


class QuarantineSettings(Group):
    """Messages that cannot be read. They are always kept; these settings say who hears of them."""

    alert: bool = True
    """Whether to tell somebody. ``false`` = only keep and count them."""
    to: Names = ("default",)
    """Receivers to tell."""
    group_wait: Duration = timedelta(minutes=5)
    """How long to collect before telling, so that a burst is one notification. ``0s`` = at once."""


class RetentionSettings(Group):
    """How long what is over is kept; ``0s`` = for ever. What is open is never removed; the totals go on counting."""

    successes: Duration = timedelta(days=2)
    """Results of tasks that did well and were no re-runs. Longer than a queue keeps a message makes no sense; shorter
    than it takes to deliver one again (minutes) would decide it twice."""
    failures: Duration = timedelta(days=90)
    """Messages of failures that are over: what a function was called with, and what it answered. They cannot be run
    again, explained or back-tested afterwards; what was decided and done stays."""
    decisions: Duration = timedelta(days=400)
    """All that is left of failures that are over: decisions, attempts, alerts, deliveries, and what people did; and
    when a function was last heard of."""
    quarantine: Duration = timedelta(days=90)
    """Messages that could not be read."""

    @model_validator(mode="after")
    def _decisions_longest(self) -> RetentionSettings:
        if self.decisions:
            for name in ("successes", "failures"):
                if not timedelta(0) < getattr(self, name) <= self.decisions:
                    raise ValueError(f"{name} must not be longer than decisions, with which everything goes")
        return self


class WebSettings(Group):
    """The operations endpoint: ``/healthz``, ``/readyz`` and ``/metrics`` over HTTP."""

    listen: Annotated[str, AfterValidator(listen_address)] = ""
    """Address and port to listen on, such as ``127.0.0.1:8020``; port 0 takes a free one. An address that others reach,
    such as ``0.0.0.0:8020``, needs ``token``. Empty = off."""
    token: Annotated[SecretStr, AfterValidator(bearer_token)] = SecretStr("")
    """Who asks must show it, as ``Authorization: Bearer TOKEN``; only ``/healthz`` is open to all. At least 16
    characters. Empty = none is asked for."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on. Only to be asked for when ``listen`` is not empty."""
        return host_and_port(self.listen)

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> WebSettings:
        if self.listen and not self.token.get_secret_value():
            host, _ = self.address
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                raise ValueError(f"listen = {self.listen!r} can be reached by others; set token, or use 127.0.0.1")
        return self


class WatchdogSettings(Group):
    """The watchdog: ends a process that hangs, so that it is started anew."""

    limit: Duration = timedelta(minutes=2)
    """How long a stage may have work and give no sign of life; an action of the outbox at least ``outbox.lease``. After
    that the process ends with code 70. Below a minute a slow answer may count as none. ``0s`` = never."""
    to: Names = ()
    """Receivers to tell before the end, without the store; empty = the log only. They are told of a store that fails,
    too; of that, when this is empty, ``default`` is."""

    @model_validator(mode="after")
    def _not_too_soon(self) -> WatchdogSettings:
        if timedelta(0) < self.limit < timedelta(seconds=2):
            raise ValueError("limit must be at least 2s, since signs of life are half a second apart; 0s = never")
        return self


class LogSettings(Group):
    """The log, on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower_case)] = "info"
    """Least severe level that is written."""
    format: Annotated[Literal["text", "json"], BeforeValidator(lower_case)] = "text"
    """``text`` for people, ``json`` (one object per line) for log collectors."""


_BELOW_STATE_DIR: Final = (
    ("queue", "path", "queue.db"),
    ("store", "path", "triage.db"),
    ("reruns", "stop_file", "STOP"),
)


class Settings(BaseSettings):
    """All settings. Made by `load_settings`; the constructor itself reads no environment and no file."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        env_prefix="TRIAGE_",
        env_nested_delimiter="__",
    )

    state_dir: Path
    """Folder for the queue and the store, made when missing; relative to the configuration file. Unset = systemd's
    ``$STATE_DIRECTORY``, else ``$XDG_STATE_HOME/triage``, else ``~/.local/state/triage``."""
    rules: Path | None = None
    """Folder of rule files, or one file; relative to the configuration file. Unset = the shipped rules."""
    sources: Annotated[tuple[SourceSettings, ...], AfterValidator(not_empty)] = (LocalSource(),)
    """Where result messages come from: a list of ``[[sources]]``. Unset = the local queue."""
    queue: QueueSettings = QueueSettings()
    store: StoreSettings = StoreSettings()
    fc: FcSettings = FcSettings()
    credentials: CredentialSettings = CredentialSettings()
    receivers: dict[Name, ReceiverSettings] = {"default": ReceiverSettings(urls=(SecretStr("console:"),))}
    """Who can be told: ``[receivers.NAME]``. ``default`` is always there and, unless configured, prints to
    standard output."""
    arrivals: tuple[ArrivalSettings, ...] = ()
    """What has to arrive: a list of ``[[arrivals]]``. Unset = nothing is missed."""
    maintenance: tuple[MaintenanceSettings, ...] = ()
    """Maintenance that comes again: a list of ``[[maintenance]]``. Unset = none."""
    owners: dict[str, Names] = {}
    """Receivers by owner, ``[owners]``: whom alerts go to whose rule has an ``owner`` and says no ``to``. Unset = all
    such go to ``default``."""
    labels: tuple[LabelSettings, ...] = ()
    """What is known of functions: a list of ``[[labels]]``. Unset = nothing."""
    outbox: OutboxSettings = OutboxSettings()
    reruns: RerunSettings = RerunSettings()
    consumer: ConsumerSettings = ConsumerSettings()
    quarantine: QuarantineSettings = QuarantineSettings()
    retention: RetentionSettings = RetentionSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    redaction: RedactionSettings = RedactionSettings()
    outbound: OutboundSettings = OutboundSettings()
    web: WebSettings = WebSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    digest: DigestSettings = DigestSettings()
    links: LinkSettings = LinkSettings()
    storm: StormSettings = StormSettings()
    log: LogSettings = LogSettings()
    traces: TracesSettings = TracesSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: `load_settings` brings the environment as an argument."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Put the files below ``state_dir`` unless their paths are absolute, and see to a default receiver."""
        full = dict(data)
        if isinstance(state_dir := data.get("state_dir"), str | Path):
            full["state_dir"] = root = Path(state_dir).expanduser()
            for group, key, default in _BELOW_STATE_DIR:
                given = data.get(group, {})
                if isinstance(given, dict) and isinstance(given.get(key, ""), str | Path):
                    full[group] = {**given, key: root / Path(given.get(key, default)).expanduser()}
        if isinstance(receivers := data.get("receivers"), dict):
            full["receivers"] = {"default": {"urls": ["console:"]}, **receivers}
        return full

    @model_validator(mode="after")
    def _redacted_means_sealed(self) -> Settings:
        if self.redaction.redaction and not self.encryption.keys:
            raise ValueError("redaction: needs encryption.keys, since the message itself is stored as it came")
        return self

    @model_validator(mode="after")
    def _names_agree(self) -> Settings:
        names = [source.name for source in self.sources]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"sources: the name {name!r} is used twice; give each source a name of its own")
        actions = {"fc.timeout": self.fc.timeout} | {
            f"receivers.{n}.timeout": r.timeout for n, r in self.receivers.items()
        }
        for name, timeout in actions.items():
            if timeout >= self.outbox.lease:
                raise ValueError(f"{name}: must be shorter than outbox.lease, or the action would be done twice")
        for source in self.sources:
            if isinstance(source, ReconcileSource) and timedelta(0) < self.retention.failures <= source.lookback:
                raise ValueError(
                    f"retention.failures: must be longer than lookback of the source {source.name!r}"
                    f" ({show_duration(source.lookback)}), or it would find again what was removed"
                )
        if self.reruns.breaker_pause_max < self.reruns.breaker_pause:
            raise ValueError("reruns.breaker_pause_max: must not be shorter than reruns.breaker_pause")
        if self.outbox.retry_max < self.outbox.retry_first:
            raise ValueError("outbox.retry_max: must not be shorter than outbox.retry_first")
        return self

    @model_validator(mode="after")
    def _receivers_exist(self) -> Settings:
        for name in self.receivers:
            self._reachable(name)
        told = {"quarantine": self.quarantine.to if self.quarantine.alert else (), "watchdog": self.watchdog.to}
        told["heartbeat"] = self.heartbeat.to
        told["digest"] = self.digest.to
        for number, arrival in enumerate(self.arrivals):
            told[f"arrivals.{number}"] = arrival.to
            if arrival.source and arrival.source not in {source.name for source in self.sources}:
                raise ValueError(f"arrivals.{number}.source: no source is named {arrival.source!r}")
        names = [each.name for each in self.maintenance]
        for number, each in enumerate(self.maintenance):
            told[f"maintenance.{number}"] = each.to
            if each.name in names[:number]:
                raise ValueError(f"maintenance.{number}.name: a second one is named {each.name!r}")
        told |= {f"owners.{owner}": to for owner, to in self.owners.items()}
        for group, receivers in told.items():
            for name in receivers:
                if name not in self.receivers:
                    key = group if group.startswith("owners.") else f"{group}.to"
                    raise ValueError(f"{key}: no receiver is named {name!r}; add [receivers.{name}]")
        return self

    def _reachable(self, name: str) -> None:
        """Refuse fallbacks that do not exist, or that lead back."""
        passed, last = [name], self.receivers[name]
        while last.fallback:
            if last.fallback not in self.receivers:
                raise ValueError(f"receivers.{passed[-1]}.fallback: no receiver is named {last.fallback!r}")
            passed.append(last.fallback)
            if passed.count(last.fallback) > 1:
                raise ValueError(f"receivers.{name}.fallback: it leads back: {' -> '.join(passed)}")
            last = self.receivers[last.fallback]
