"""What becomes of the data of functions: encrypted in the store, taken out of what people are shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from triage.sealing import Seal, read_key
from triage.settings.group import Group
from triage.settings.values import text_lines


def _keys(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for number, key in enumerate(value, 1):
        read_key(key.get_secret_value(), number)
    return value


Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(text_lines), AfterValidator(_keys)]


class EncryptionSettings(Group):
    """Messages encrypted in the store."""

    keys: Keys = ()
    """Keys of 32 bytes in base64, best in the secret file ``encryption__keys``, one per line. The first one seals what
    is stored from now on, the others open what was stored before. Empty = no encryption."""

    @property
    def seal(self) -> Seal:
        """The keys at work."""
        return Seal.of([key.get_secret_value() for key in self.keys])
