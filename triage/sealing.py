"""Messages encrypted at rest: AES-256-GCM over each body, with keys that can be rotated.

Only what a task was called with and what it answered is sealed, the columns named ``body``. What is searched and told
(function, error, texts of alerts) is not; `triage.redaction` is for that. Without a key bodies are stored as they came.
Each is bound to its row: in the place of another it does not open. SQL reads and writes them through the functions
``opened`` and ``sealed``, which every connection brings along.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from triage.errors import Misconfigured, SealBroken

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32

BOUND_TO: Final[Mapping[str, tuple[str, ...]]] = {
    "envelopes": ("request_id",),
    "conflicts": ("digest", "request_id"),
    "quarantine": ("received_at", "source", "message_id"),
}
"""The tables with a ``body``, and what names a row of each, which never changes."""

_MARK: Final = b"\x00sealed\x00"
# In the place of a key's name:
_PLAIN: Final = bytes(4)  # what follows is as it came, and only looks like a sealed body
_BOUND: Final = bytes(3) + b"\x01"  # what follows begins with a key's name, and is bound to its row
_NONCE: Final = 12
_META: Final = "sealed_by"
_STEP: Final = 200
"""Rows that are sealed anew in one transaction, so that a daemon at work need not wait."""


@dataclass(frozen=True)
class Seal:
    """Seals with the first of ``keys``, and opens with any of them. Equal keys make equal seals."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Seal:
        """From keys as they are configured.

        Raises:
            ValueError: one is no key; which one is told, not what it says.
        """
        return cls(tuple(read_key(text, number) for number, text in enumerate(texts, 1)))

    def __reduce__(self) -> tuple[type[Seal], tuple[tuple[bytes, ...]]]:
        return Seal, (self.keys,)  # for another process, to which a cipher cannot be given

    def __post_init__(self) -> None:
        ciphers: dict[bytes, AESGCM] = {}
        if self.keys:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - only where it is used

            ciphers = {_name(key): AESGCM(key) for key in self.keys}
        object.__setattr__(self, "_ciphers", ciphers)

    @property
    def names(self) -> list[str]:
        """What the keys are called in the store and in messages, the newest first."""
        return [_name(key).hex() for key in self.keys]

    def sealed(self, row: str, body: bytes) -> bytes:
        """A body as it is stored in the row of this name. Of an empty one, which has no secret, nothing is made."""
        if not body:
            return body
        if not self.keys:
            return _MARK + _PLAIN + body if body.startswith(_MARK) else body
        name, nonce = _name(self.keys[0]), os.urandom(_NONCE)
        return _MARK + _BOUND + name + nonce + self._cipher(name).encrypt(nonce, body, _bound(row))

    def opened(self, row: str, stored: bytes) -> bytes:
        """Undo `sealed`. What was sealed before seals were bound to rows is opened in any.

        Raises:
            Misconfigured: the key is not there.
            SealBroken: somebody has changed it, or it was sealed for another row.
        """
        if not stored.startswith(_MARK):
            return stored
        name, rest = stored[len(_MARK) : len(_MARK) + 4], stored[len(_MARK) + 4 :]
        if name == _PLAIN:
            return rest
        also = _MARK
        if name == _BOUND:
            name, rest, also = rest[:4], rest[4:], _bound(row)
        cipher = self._cipher(name)
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - only where it is used

        try:
            return cipher.decrypt(rest[:_NONCE], rest[_NONCE:], also)
        except (InvalidTag, ValueError) as error:  # the latter: it was cut off
            raise SealBroken(row) from error

    def _cipher(self, name: bytes) -> AESGCM:
        ciphers: dict[bytes, AESGCM] = self.__dict__["_ciphers"]
        if name not in ciphers:
            raise Misconfigured("encryption", f"the key {name.hex()} is not in encryption.keys")
        return ciphers[name]

    def attach(self, connection: sqlite3.Connection) -> None:
        """Give a connection the SQL functions ``sealed`` and ``opened``."""
        connection.create_function("sealed", 2, self.sealed)
        connection.create_function("opened", 2, self.opened, deterministic=True)

    def check(self, connection: sqlite3.Connection) -> None:
        """Refuse a store that holds what these keys cannot open.

        Raises:
            Misconfigured: says which key is missing.
        """
        missing = [name for name in _used(connection) if name not in self.names]
        if missing:
            raise Misconfigured(
                "encryption",
                f"the store holds messages sealed with {'the key' if len(missing) == 1 else 'the keys'} "
                f"{', '.join(missing)}: add what is missing to encryption.keys, below the newest",
            )

    def begin(self, connection: sqlite3.Connection) -> None:
        """Note, before the first message is sealed with the newest key, that this key is needed from now on."""
        used = _used(connection)
        if self.keys and self.names[0] not in used:
            _note(connection, [*used, self.names[0]])
        if self.keys:
            connection.execute("PRAGMA secure_delete = ON")  # no plain body is left in a page that became free

    def anew(self, connection: sqlite3.Connection) -> Iterator[int]:
        """Seal with the newest key whatever is not; gives how many bodies were, step by step. Then it is the only key
        that is needed.

        Raises:
            Misconfigured: there is no key, or one that is needed is missing.
            SealBroken: there is one that does not open. Those before it are sealed anew.
        """
        if not self.keys:
            raise Misconfigured("encryption", "encryption.keys is empty; there is nothing to seal with")
        self.check(connection)
        ours = _MARK + _BOUND + _name(self.keys[0])
        for table in BOUND_TO:
            after: int | None = 0
            while after is not None:
                connection.execute("BEGIN IMMEDIATE")
                rows = connection.execute(
                    f"SELECT id, {row_name(table)}, body FROM {table} "
                    "WHERE id > ? AND length(body) > 0 AND substr(body, 1, ?) != ? ORDER BY id LIMIT ?",
                    (after, len(ours), ours, _STEP),
                ).fetchall()
                try:
                    anew = [(self.sealed(name, self.opened(name, body)), number) for number, name, body in rows]
                except SealBroken:
                    connection.execute("ROLLBACK")
                    raise
                connection.executemany(f"UPDATE {table} SET body = ? WHERE id = ?", anew)
                connection.execute("COMMIT")
                after = rows[-1][0] if rows else None
                if rows:
                    yield len(rows)
        connection.execute("BEGIN IMMEDIATE")
        _note(connection, [self.names[0]])
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log holds the pages as they were


def read_key(text: str, number: int = 1) -> bytes:
    """A key from its text: 32 bytes in base64.

    Raises:
        ValueError: it is none.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"key {number} is not 32 bytes in base64; make one with: openssl rand -base64 32")
    return key


def row_name(table: str, value: Callable[[str], str] = str) -> str:
    """SQL for the name of a row, to which its body is bound; ``value`` writes the value of a column in SQL."""
    return " || ' ' || ".join((f"'{table}'", *map(value, BOUND_TO[table])))


def _bound(row: str) -> bytes:
    return _MARK + row.encode()


def _name(key: bytes) -> bytes:
    return hashlib.sha256(b"triage\x00" + key).digest()[:4]


def _used(connection: sqlite3.Connection) -> list[str]:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_META,)).fetchone()
    names: list[str] = json.loads(row[0]) if row else []
    return names


def _note(connection: sqlite3.Connection, names: list[str]) -> None:
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_META, json.dumps(names)),
    )
