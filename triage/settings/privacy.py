"""What becomes of the data of functions: encrypted in the store, taken out of what people are shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from triage.redaction import DETECTORS, Redaction
from triage.sealing import Seal, read_key
from triage.settings.group import Group
from triage.settings.values import text_lines


def _keys(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for number, key in enumerate(value, 1):
        read_key(key.get_secret_value(), number)
    return value


Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(text_lines), AfterValidator(_keys)]


def _detector(value: str) -> str:
    if value not in DETECTORS:
        raise ValueError(f"{value!r} is no detector; there are {', '.join(DETECTORS)}")
    return value


def _path(value: str) -> str:
    parts = value.split(".")
    if not all(parts) or parts[-1] == "**":
        raise ValueError(f"{value!r} is no path: keys with dots between them, and a key at the end")
    return value


Detector = Annotated[str, AfterValidator(_detector)]


class EncryptionSettings(Group):
    """Messages encrypted in the store."""

    keys: Keys = ()
    """Keys of 32 bytes in base64, best in the secret file ``encryption__keys``, one per line. The first one seals what
    is stored from now on, the others open what was stored before. Empty = no encryption."""

    @property
    def seal(self) -> Seal:
        """The keys at work."""
        return Seal.of([key.get_secret_value() for key in self.keys])


class RedactionSettings(Group):
    """What is taken out of texts before they are stored, told or shown. The message itself is kept, sealed."""

    detectors: Annotated[tuple[Detector, ...], NoDecode, BeforeValidator(text_lines)] = ()
    """What is looked for in error messages, alerts, events and answers: ``email``, ``card``, ``phone``,
    ``resident_id``, ``access_key``, ``token``. Empty = nothing."""
    paths: Annotated[tuple[Annotated[str, AfterValidator(_path)], ...], NoDecode, BeforeValidator(text_lines)] = ()
    """Values inside events and answers, such as ``user.email`` or ``**.password``: keys from the outside with dots
    between them, ``*`` for any part of a key, ``**`` for any number of keys. Empty = none."""

    @property
    def redaction(self) -> Redaction:
        """The same at work."""
        return Redaction.of(self.paths, self.detectors)
