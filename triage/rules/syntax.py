"""What a checked CEL expression consists of, read from its serialized form.

The library tells nothing of an expression but its type, yet it serializes the syntax tree with all resolved names
(protobuf message ``cel.expr.CheckedExpr``, github.com/google/cel-spec, ``checked.proto`` and ``syntax.proto``).
The field numbers below are from there. Protobuf itself is not needed: the wire format is a dozen lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_ANY_VALUE: Final = 2
_REFERENCES, _TYPES, _EXPRESSION, _SOURCE = 2, 3, 4, 5
_REFERENCE_NAME, _REFERENCE_OVERLOADS = 1, 3
_POSITIONS: Final = 4
_ID, _CONSTANT, _NAME, _SELECT, _CALL, _LIST, _STRUCT, _LOOP = 2, 3, 4, 5, 6, 7, 8, 9
_ANY, _PARTS = 1, {6: 1, 7: 1, 14: 2}
"""Types: a value of any type; in lists, maps and others the field from which on their parts are told."""
_VARIABLE, _RANGE, _REPEATED = 1, 2, (4, 5, 6, 7)
_TARGET, _FUNCTION, _ARGUMENTS = 1, 2, 3
_CONSTANT_TEXT: Final = 6

_INSIDE: Final = {_SELECT: (1,), _LIST: (1,), _LOOP: (2, 4, 5, 6, 7)}
"""Fields of an expression's kinds in which further expressions stand."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function call.

    Attributes:
        literal: its first argument, when that is a quoted text.
        argument: where its first argument stands.
        loops: how many loops it stands in.
        varies: it mentions a variable of one of them.
        is_open: nothing is known at load about the size of any value it is given, the target included.
    """

    function: str
    overloads: tuple[str, ...]
    offset: int | None
    literal: str | None
    argument: int | None
    loops: int = 0
    varies: bool = False
    is_open: bool = False


@dataclass(slots=True)
class Tree:
    """The names an expression mentions, its calls, and how deep its loops stand inside each other."""

    names: set[str] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)
    loops: int = 0


Fields = dict[int, list[bytes | int]]


def read_tree(serialized: bytes) -> Tree:
    """Read ``Expression.serialize()`` of a checked expression."""
    checked = _fields(_message(_fields(serialized), _ANY_VALUE))
    tree = Tree()
    overloads: dict[int, tuple[str, ...]] = {}
    for entry in _messages(checked, _REFERENCES):
        reference = _fields(_message(_fields(entry), 2))
        overloads[_number(_fields(entry), 1) or 0] = tuple(
            each.decode() for each in _messages(reference, _REFERENCE_OVERLOADS)
        )
        if not reference.get(_REFERENCE_OVERLOADS):
            tree.names.add(_message(reference, _REFERENCE_NAME).decode())
    source = _fields(_message(checked, _SOURCE))
    positions = {
        _number(entry, 1) or 0: _number(entry, 2) or 0 for entry in map(_fields, _messages(source, _POSITIONS))
    }
    open_values = {
        _number(entry, 1) or 0 for entry in map(_fields, _messages(checked, _TYPES)) if _is_open(_message(entry, 2))
    }
    reader = _Reader(tree, overloads, positions, open_values)
    reader.walk(_fields(_message(checked, _EXPRESSION)), frozenset(), loops=0)
    return tree


@dataclass(frozen=True, slots=True)
class _Reader:
    tree: Tree
    overloads: dict[int, tuple[str, ...]]
    positions: dict[int, int]
    open_values: set[int]

    def walk(self, expression: Fields, variables: frozenset[str], *, loops: int) -> None:
        # As deep as the parser allows: 32, a few more where macros were expanded.
        if _LOOP in expression:
            self.tree.loops = max(self.tree.loops, loops + 1)
            loop = _fields(_message(expression, _LOOP))
            self.walk(_fields(_message(loop, _RANGE)), variables, loops=loops)
            inside = variables | {_message(loop, _VARIABLE).decode()}
            for number in _REPEATED:
                self.walk(_fields(_message(loop, number)), inside, loops=loops + 1)
            return
        if _CALL in expression:
            self.tree.calls.append(self.call(expression, variables, loops))
        for inner in _inside(expression):
            self.walk(_fields(inner), variables, loops=loops)

    def call(self, expression: Fields, variables: frozenset[str], loops: int) -> Call:
        call = _fields(_message(expression, _CALL))
        arguments = [_fields(each) for each in _messages(call, _ARGUMENTS)]
        target = [_fields(each) for each in _messages(call, _TARGET)]
        number = _number(expression, _ID) or 0
        first = arguments[0] if arguments else {}
        return Call(
            _message(call, _FUNCTION).decode(),
            self.overloads.get(number, ()),
            self.positions.get(number),
            _literal(first),
            self.positions.get(_number(first, _ID) or 0),
            loops,
            loops > 0 and _mentions(expression, variables),
            all(_number(each, _ID) in self.open_values for each in (*target, *arguments)),
        )


def _mentions(expression: Fields, variables: frozenset[str]) -> bool:
    name = _message(_fields(_message(expression, _NAME)), 1).decode()
    return name in variables or any(_mentions(_fields(inner), variables) for inner in _inside(expression))


def _is_open(kind: bytes) -> bool:
    fields = _fields(kind)
    if _ANY in fields:
        return True
    return any(
        _is_open(part)
        for number, first in _PARTS.items()
        for each in _messages(fields, number)
        for field_number, parts in _fields(each).items()
        if field_number >= first
        for part in parts
        if isinstance(part, bytes)
    )


def _inside(expression: Fields) -> Iterator[bytes]:
    for kind, numbers in _INSIDE.items():
        if kind in expression:
            fields = _fields(_message(expression, kind))
            for number in numbers:
                yield from _messages(fields, number)
    if _CALL in expression:
        fields = _fields(_message(expression, _CALL))
        yield from _messages(fields, _TARGET)
        yield from _messages(fields, _ARGUMENTS)
    if _STRUCT in expression:
        for entry in _messages(_fields(_message(expression, _STRUCT)), 2):
            pair = _fields(entry)
            yield from _messages(pair, 3)  # a map's key
            yield from _messages(pair, 4)


def _literal(expression: Fields) -> str | None:
    constant = _fields(_message(expression, _CONSTANT))
    return _message(constant, _CONSTANT_TEXT).decode() if _CONSTANT_TEXT in constant else None


def _message(fields: Fields, number: int) -> bytes:
    return next(iter(_messages(fields, number)), b"")


def _messages(fields: Fields, number: int) -> list[bytes]:
    return [value for value in fields.get(number, ()) if isinstance(value, bytes)]


def _number(fields: Fields, number: int) -> int | None:
    return next((value for value in fields.get(number, ()) if isinstance(value, int)), None)


def _fields(data: bytes) -> Fields:
    """Split a protobuf message into its fields: varints as numbers, everything else as bytes."""
    fields: Fields = {}
    index = 0
    while index < len(data):
        tag, index = _varint(data, index)
        value: bytes | int
        match tag & 7:
            case 0:
                value, index = _varint(data, index)
            case 2:
                size, index = _varint(data, index)
                value, index = data[index : index + size], index + size
            case wire:
                size = 8 if wire == 1 else 4
                value, index = data[index : index + size], index + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, index: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[index]
        index += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, index
        shift += 7
