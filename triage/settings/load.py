"""Reads the settings from file, secret files and environment, and says for every mistake where it is."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, NestedSecretsSettingsSource, SettingsError

from triage.errors import ConfigInvalid, Problem
from triage.settings.fields import Settings
from triage.settings.places import excerpt, find, key_places

_DELIMITER = "__"
_PREFIX = "TRIAGE_"
_CREDENTIAL = "triage_"
"""What systemd puts before the names of the files when ``LoadCredential=triage:FOLDER`` loads all of a folder."""
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}
_EXPECTED = {
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
    "tuple_type": "a list",
    "path_type": "a path as text",
    "string_type": "text",
}
"""pydantic's types of error whose messages name Python's types instead of TOML's."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with their origins: ``origins["queue.name"]`` is the name of a file or variable; absent = default."""

    settings: Settings
    origins: Mapping[str, str]
    path: Path | None = None
    text: str = ""

    def problem(self, keys: Sequence[str | int], message: str, hint: str = "") -> Problem:
        """What is wrong with the setting at ``keys``, with its place: that of whoever set it."""
        return _placed(keys, message, hint, path=self.path, text=self.text, origins=self.origins)


def load_settings(path: Path | None, *, environ: Mapping[str, str]) -> Settings:
    """Read the settings. ``path`` None means: no file.

    Raises:
        ConfigInvalid: with everything that is wrong, each with its place.
    """
    return load(path, environ=environ).settings


def load(path: Path | None, *, environ: Mapping[str, str]) -> Loaded:
    """Read the settings and remember where each came from.

    Raises:
        ConfigInvalid: with everything that is wrong, each with its place.
    """
    text = _read(path) if path else ""
    from_file = _parse(path, text) if path else {}
    for key in ("state_dir", "rules"):
        if path and isinstance(from_file.get(key), str):
            from_file[key] = str(path.parent / Path(from_file[key]).expanduser())
    from_secrets = _secrets(environ)
    from_environ = _environment(environ)
    merged = _merge(_merge(from_file, from_secrets), from_environ)
    origins = dict.fromkeys(_leaves(from_file), str(path))
    origins |= {key: f"secret file {key.replace('.', _DELIMITER)}" for key in _leaves(from_secrets)}
    origins |= {key: _variable(key) for key in _leaves(from_environ)}
    if "state_dir" not in merged:
        merged["state_dir"], origins["state_dir"] = _state_dir(environ)
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise ConfigInvalid([_problem(detail, path, text, origins) for detail in details]) from None
    return Loaded(settings, origins, path, text)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem(str(path), 0, 0, f"not UTF-8 text: byte {error.start} is not valid")
    except OSError as error:
        problem = Problem(str(path), 0, 0, f"cannot read the configuration: {error.strerror or error}")
    raise ConfigInvalid([problem])


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Python 3.11 to 3.13 give the position in the message only.
        message, _, where = str(error).partition(" (at ")
        numbers = [int(number) for number in re.findall(r"\d+", where)]
        line, column = numbers if len(numbers) == 2 else (max(len(text.splitlines()), 1), 1)
        shown = excerpt(text, line)
        raise ConfigInvalid([Problem(str(path), line, column, f"not TOML: {message}", "", shown)]) from None


class _Environ(EnvSettingsSource):
    """The library's reader of environment variables, on the mapping it is given instead of the process's own."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items()}


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    # A name without the delimiter is not ours to refuse: Kubernetes sets TRIAGE_PORT for a service called triage.
    unknown = [
        Problem(f"${name}", 0, 0, "no such setting", _guess(head, Settings.model_fields))
        for name in sorted(environ)
        if name.startswith(_PREFIX) and _DELIMITER in name
        if (head := name.removeprefix(_PREFIX).split(_DELIMITER)[0].lower()) not in Settings.model_fields
    ]
    if unknown:
        raise ConfigInvalid(unknown)
    try:
        return _Environ(environ)()
    except SettingsError as error:
        raise ConfigInvalid([_undecodable(error, "environment")]) from None


class _SecretFiles(NestedSecretsSettingsSource):
    """The library's reader of secret files, by the names that systemd gives to a folder of credentials, too."""

    @classmethod
    def load_secrets(cls, path: Path) -> dict[str, str]:
        return {name.removeprefix(_CREDENTIAL): value for name, value in super().load_secrets(path).items()}


def _secrets(environ: Mapping[str, str]) -> dict[str, Any]:
    variable = "TRIAGE_SECRETS_DIR" if environ.get("TRIAGE_SECRETS_DIR") else "CREDENTIALS_DIRECTORY"
    folder = environ.get(variable, "")
    if not folder:
        return {}
    try:
        source = _SecretFiles(
            Settings,  # type: ignore[arg-type]  # a class is as good, says the library's own comment
            secrets_dir=folder,
            secrets_dir_missing="error",
            secrets_prefix="",
            secrets_nested_delimiter="__",
        )
        found = source()
    except SettingsError as error:
        raise ConfigInvalid([_undecodable(error, f"${variable}")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid([Problem(f"${variable}", 0, 0, f"cannot read the secret files: {error}")]) from None
    unknown = [
        Problem(f"{folder}/{name}", 0, 0, "no such setting", _guess(head, Settings.model_fields))
        for name in sorted(source.env_vars)
        if (head := name.split(_DELIMITER)[0]) not in Settings.model_fields
    ]
    if unknown:
        raise ConfigInvalid(unknown)
    return found


def _undecodable(error: SettingsError, origin: str) -> Problem:
    """The library names the field it could not decode; its cause may quote the value, so that is left out."""
    named = re.search(r'field "(\w+)"', str(error))
    return Problem(origin, 0, 0, f"{named[1]}: expected JSON" if named else str(error))


def _state_dir(environ: Mapping[str, str]) -> tuple[str, str]:
    """Where the state is when nobody says, and whose idea that is."""
    if systemd := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return systemd, "$STATE_DIRECTORY"
    if xdg := environ.get("XDG_STATE_HOME"):
        return str(Path(xdg) / "triage"), "$XDG_STATE_HOME"
    return str(Path(environ.get("HOME", "~")) / ".local/state/triage"), "default"


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        merged[key] = _merge(lower, value) if isinstance(lower, dict) and isinstance(value, dict) else value
    return merged


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _variable(key: str) -> str:
    return f"${_PREFIX}{key.replace('.', _DELIMITER).upper()}"


def _problem(detail: ErrorDetails, path: Path | None, text: str, origins: Mapping[str, str]) -> Problem:
    return _placed(*_described(detail), path=path, text=text, origins=origins)


def _placed(
    keys: Sequence[str | int], message: str, hint: str, *, path: Path | None, text: str, origins: Mapping[str, str]
) -> Problem:
    origin = _origin(keys, origins) or (str(path) if path else "configuration")
    key = ".".join(map(str, keys))
    message = f"{key}: {message}" if key else message
    place = find(key_places(text), keys) if path and origin == str(path) else None
    if place is None:
        return Problem(origin, 0, 0, message, hint)
    return Problem(origin, place.line, place.column, message, hint, excerpt(text, place.line))


def _origin(keys: Sequence[str | int], origins: Mapping[str, str]) -> str:
    """Who set this key, else something below it, else something around it."""
    for end in range(len(keys), 0, -1):
        key = ".".join(map(str, keys[:end]))
        for name, origin in origins.items():
            if name == key or name.startswith(f"{key}."):
                return origin
    return ""


def _described(detail: ErrorDetails) -> tuple[tuple[str | int, ...], str, str]:
    """Key path, message and hint of one validation error, without its input, which may be secret."""
    keys, known = _walk(detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    match detail["type"]:
        case "extra_forbidden":
            return keys, "no such setting", _guess(str(keys[-1]), known)
        case "missing":
            return keys, "required, but not given", ""
        case "union_tag_not_found":
            return (*keys, "type"), "required, but not given", 'type = "local", "smq" or "reconcile"'
        case "union_tag_invalid":
            return (*keys, "type"), "no such type of source", 'type = "local", "smq" or "reconcile"'
        case "value_error" if not keys and (named := re.match(r"([\w.-]+): ", message)):
            return tuple(named[1].split(".")), message[named.end() :], ""
        case kind if kind in _BOUNDS:
            name, words = _BOUNDS[kind]
            return keys, f"must be {words} {detail['ctx'][name]}", ""
        case kind if kind in _EXPECTED:
            return keys, f"expected {_EXPECTED[kind]}", ""
        case _:
            return keys, message[:1].lower() + message[1:], ""


def _guess(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key.lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def _walk(loc: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], list[str]]:
    """The key path of an error without the tags pydantic puts into it, and the keys that exist beside its last one."""
    keys: list[str | int] = []
    here: list[type[BaseModel]] = [Settings]
    known: list[str] = []
    for part in loc:
        tagged = [model for model in here if part in _tags(model)]
        if tagged:
            here = tagged
            continue
        keys.append(part)
        if part == "[key]":
            keys.pop()
            break
        known = [name for model in here for name in model.model_fields]
        below = [
            m for model in here if part in model.model_fields for m in _models(model.model_fields[str(part)].annotation)
        ]
        here = below or here
    return tuple(keys), known


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(model.model_fields["type"].annotation) if "type" in model.model_fields else ()


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The settings groups inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
