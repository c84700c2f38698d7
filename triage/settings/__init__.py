"""Settings: one TOML file, environment variables over it, secret files between the two.

``TRIAGE_QUEUE__NAME`` in the environment sets ``name`` in ``[queue]``; a file ``credentials__access_key_secret`` in the
secrets directory (``$TRIAGE_SECRETS_DIR``, else systemd's ``$CREDENTIALS_DIRECTORY``) sets what its name says. Whatever
is wrong is told at once, each with its place.
"""

from triage.settings.fields import (
    ConsumerSettings,
    CredentialSettings,
    FcSettings,
    LabelSettings,
    LogSettings,
    OutboxSettings,
    QuarantineSettings,
    QueueSettings,
    RetentionSettings,
    Settings,
    StoreSettings,
    WatchdogSettings,
    WebSettings,
)
from triage.settings.links import LinkSettings
from triage.settings.load import Loaded, load, load_settings
from triage.settings.maintenance import MaintenanceSettings
from triage.settings.outbound import OutboundSettings
from triage.settings.privacy import EncryptionSettings, RedactionSettings
from triage.settings.receivers import ReceiverSettings
from triage.settings.reruns import RerunSettings
from triage.settings.sources import LocalSource, ReconcileSource, SmqSource, SourceSettings
from triage.settings.values import Duration, parse_duration, show_duration
from triage.settings.watching import ArrivalSettings, DigestSettings, HeartbeatSettings

__all__ = [
    "ArrivalSettings",
    "ConsumerSettings",
    "CredentialSettings",
    "DigestSettings",
    "Duration",
    "EncryptionSettings",
    "FcSettings",
    "HeartbeatSettings",
    "LabelSettings",
    "LinkSettings",
    "Loaded",
    "LocalSource",
    "LogSettings",
    "MaintenanceSettings",
    "OutboundSettings",
    "OutboxSettings",
    "QuarantineSettings",
    "QueueSettings",
    "ReceiverSettings",
    "ReconcileSource",
    "RedactionSettings",
    "RerunSettings",
    "RetentionSettings",
    "Settings",
    "SmqSource",
    "SourceSettings",
    "StoreSettings",
    "WatchdogSettings",
    "WebSettings",
    "load",
    "load_settings",
    "parse_duration",
    "show_duration",
]
