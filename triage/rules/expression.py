"""``when:`` expressions in CEL (cel.dev), by Google's C++ implementation. The only module that knows the library.

Names are declared with their types, so a misspelt one or a wrong comparison is found at load, with its place. What
could make an evaluation large is kept out: building texts and lists (``+`` on them, ``map``, ``filter``), regular
expressions that are not literals (``matches`` also compiles its pattern each time; ``.rx`` takes its place).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from triage.facts import Unrecorded
from triage.rules.mistakes import Mistake, Mistakes, did_you_mean, wrong
from triage.rules.model import Subject
from triage.rules.regex import compile_regex, steps_of
from triage.rules.syntax import Call, Tree, read_tree
from triage.rules.windows import Window
from triage.subject import VOCABULARY

MAX_TEXT: Final = 4_000
"""Characters of one expression."""
MAX_LOOPS: Final = 3
"""``exists``, ``all`` and the like inside each other. The evaluator stops after 10,000 steps in all."""

MAX_SEARCHED: Final = 50_000_000
"""Characters that ``.rx`` may search in one evaluation, each times the steps of its pattern: a second at worst."""

FUNCTIONS: Final = (
    "has", "size", "contains", "startsWith", "endsWith", "rx", "exists", "exists_one", "all", "orValue", "hasValue",
    "duration", "timestamp", "int", "double", "string", "bool", "type", "true", "false", "null", "now",
)  # fmt: skip

RESERVED: Final = (
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
)  # fmt: skip
"""Words that cannot be names in an expression."""

_NO_KEY: Final = "Key not found in map : "

NO_WINDOWS: Final[Mapping[str, Window]] = {}

_CONFIG: Final = """
name: triage
extensions:
  - name: optional
stdlib:
  exclude_macros: [map, filter]
  exclude_functions:
    - name: matches
    - name: _+_
      overloads: [{id: add_string}, {id: add_bytes}, {id: add_list}]
"""

_HINTS: Final[Mapping[str, str]] = {
    "function": "the function's name is called fn here, because CEL reserves that word",
    "matches": 'write .rx("...")',
    "map": "not offered, because it may build large lists; exists and all are",
    "filter": "not offered, because it may build large lists; exists and all are",
    "error": "write error.type or error.message",
    "lineage": "write lineage.attempt, lineage.age and so on",
    "group": "write group.count, group.rate_5m and so on",
    "windows": "write windows.NAME, where NAME is defined under windows",
    "and": "write &&",
    "or": "write ||",
    "not": "write !",
}


@dataclass(frozen=True, slots=True)
class CelExpression:
    """A compiled ``when:``. ``names`` are those of the vocabulary that it mentions; no other value is fetched."""

    text: str
    names: tuple[str, ...]
    _program: Any = field(compare=False)
    windows: Mapping[str, Window] = field(default_factory=dict)
    """Those that it mentions, by the names they have in it."""

    def evaluate(self, subject: Subject) -> bool | str:
        """True, False, or a short text when the expression has no truth value for this subject. Never raises."""
        _searched[0] = 0
        try:
            data = {name: _plain(subject[name]) for name in self.names}
            for name, window in self.windows.items():
                data[name] = window.contains(subject["now"])
            result = self._program.eval(data=data)
            value = result.value()
        except Unrecorded as error:
            return str(error)
        except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
            # The binding raises for a spent budget and for values that it cannot take (a lone surrogate, say).
            return self._error(str(error))
        if value is True or value is False:
            return bool(value)
        # An evaluation error is a value, too.
        return self._error(value) if result.type() == cel.Type.ERROR else "the result is neither true nor false"

    def _error(self, message: str) -> str:
        code, _, detail = re.sub(r" \[[A-Z_]+\]$", "", message).partition(": ")
        if not code.isupper():
            return "a value that cannot be evaluated"
        # Keys are quoted in the message, and a computed key is a piece of the payload: it may be a secret.
        told = re.sub(r"(?P<mark>[\"']).*(?P=mark)", self._known, detail, flags=re.DOTALL)[:160]
        return f"{told.replace(_NO_KEY, 'there is no ')} (has(...) asks first)" if _NO_KEY in told else told

    def _known(self, quoted: re.Match[str]) -> str:
        return quoted[0] if quoted[0][1:-1] in self.text else "..."


def compile_expression(text: str, windows: Mapping[str, Window] = NO_WINDOWS) -> CelExpression:
    """Compile and check a ``when:``, which may mention ``windows`` by their names.

    Raises:
        Mistakes: each with its ``offset`` in the text where that is known.
    """
    if len(text) > MAX_TEXT:
        raise wrong(f"the expression has {len(text)} characters; at most {MAX_TEXT} are taken")
    if not text.strip():
        raise wrong("the expression is empty", "leave `when` out to match without a condition")
    named = {f"windows.{name}": window for name, window in windows.items()}
    try:
        program = _environment(frozenset(named)).compile(text)
    except TypeError:
        raise wrong("the expression is no Unicode text") from None
    except RuntimeError as error:
        raise Mistakes(_mistakes(text, str(error), (*VOCABULARY, *named, *FUNCTIONS))) from None
    result = program.return_type()
    if result not in (cel.Type.BOOL, cel.Type.DYN):
        raise wrong(f"the expression gives {result.name()}, not true or false", "compare it with something")
    tree = read_tree(program.serialize())
    if mistakes := _forbidden(tree):
        raise Mistakes(mistakes)
    mentioned = {name: window for name, window in named.items() if name in tree.names}
    return CelExpression(text, tuple(name for name in VOCABULARY if name in tree.names), program, mentioned)


_searched = [0]
"""Of the evaluation that is running. There is one at a time: a process decides in one thread."""


def _rx(text: str, pattern: str) -> bool:
    _searched[0] += len(text) * steps_of(pattern)
    if _searched[0] > MAX_SEARCHED:
        raise RuntimeError("the regular expressions take too long")
    return compile_regex(pattern)(text)


@lru_cache(maxsize=64)
def _environment(windows: frozenset[str]) -> Any:
    types = cel.Type
    kinds = {"LABELS": types.Map(types.STRING, types.STRING)}
    search = cel.Overload(
        "string_rx_string",
        return_type=types.BOOL,
        parameters=[types.STRING, types.STRING],
        is_member=True,
        impl=_rx,
    )
    return cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(_CONFIG),
        variables={
            **{name: kinds.get(kind) or getattr(types, kind) for name, kind in VOCABULARY.items()},
            **dict.fromkeys(windows, types.BOOL),
        },
        extensions=[cel.CelExtension("triage", [cel.FunctionDecl("rx", [search])])],
    )


def _plain(value: Any) -> Any:
    # A payload that is no JSON has no fields: has(payload.x) is false then, rather than an error.
    return {} if value is None else value


def _forbidden(tree: Tree) -> list[Mistake]:
    mistakes = []
    for call in tree.calls:
        if call.function == "_+_" and len(call.overloads) > 1:
            # What is added is only known at run time, and two texts or lists would be joined.
            hint = "say which numbers they are: int(payload.a) + int(payload.b)"
            mistakes.append(Mistake("a sum of two values of unknown type", hint, offset=call.offset))
        elif call.function in _COMPARING and call.is_open and call.loops and not (call.varies and call.loops == 1):
            mistakes.append(_comparison(call))
        elif call.function == "contains" and call.loops > 1 and call.literal is None:
            mistakes.append(Mistake("in a loop inside a loop, .contains takes a text in quotes", offset=call.offset))
        elif call.function == "rx":
            if call.literal is None:
                mistakes.append(Mistake(".rx takes a pattern in quotes, not a computed one", offset=call.offset))
                continue
            try:
                compile_regex(call.literal)
            except Mistakes as error:
                mistakes += [Mistake(each.message, each.hint, offset=call.argument) for each in error.mistakes]
    if tree.loops > MAX_LOOPS:
        mistakes.append(Mistake(f"more than {MAX_LOOPS} of exists, all and the like inside each other"))
    return mistakes


_COMPARING: Final = ("_==_", "_!=_", "@in")


def _comparison(call: Call) -> Mistake:
    # Steps are counted, but not what one comparison of two large values takes. With a value of known type it ends soon.
    if not call.varies:
        hint = "compare before the loop: payload.a == payload.b && payload.items.exists(...)"
        return Mistake("a comparison in a loop of what is the same each time", hint, offset=call.offset)
    hint = "say what they are: string(a.id) == string(b.id)"
    return Mistake("in a loop inside a loop, a comparison of values of unknown type", hint, offset=call.offset)


_LINE: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")


def _mistakes(text: str, report: str, known: Collection[str]) -> list[Mistake]:
    """Read the library's report: one ``ERROR: <input>:LINE:COLUMN: MESSAGE`` each, with excerpts between."""
    lines = text.split("\n")
    found: dict[tuple[str, int | None], Mistake] = {}
    for line, column, message in _LINE.findall(report):
        offset = None
        if 0 < int(line) <= len(lines):
            offset = sum(len(each) + 1 for each in lines[: int(line) - 1]) + int(column) - 1
        mistake = _said(message.removesuffix(" [INVALID_ARGUMENT]"), offset, known)
        found.setdefault((mistake.message, offset), mistake)
    if found:
        return list(found.values())
    message = re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]$", "", report.partition("\n")[0])
    return [Mistake(message)]


def _said(message: str, offset: int | None, known: Collection[str]) -> Mistake:
    message = message.replace(" (in container '')", "")
    if name := re.fullmatch(r"undeclared reference to '(.*)'", message):
        if name[1] in FUNCTIONS:
            return Mistake(f"{name[1]} is not called this way", offset=offset)
        return Mistake(f"unknown name {name[1]!r}", _HINTS.get(name[1]) or did_you_mean(name[1], known), offset=offset)
    if call := re.fullmatch(r"found no matching overload for '_?(.+?)_?' applied to '(.*)'", message):
        return Mistake(f"{call[1]} does not take {call[2]}", offset=offset)
    message = message.removeprefix("Syntax error: ").partition(" expecting ")[0]
    if message == "mismatched input '<EOF>'":
        return Mistake("the expression ends too early", offset=offset)
    word = re.search(r"(?:input|identifier:?) '?(\w+)", message)
    return Mistake(message, _HINTS.get(word[1], "") if word else "", offset=offset)
