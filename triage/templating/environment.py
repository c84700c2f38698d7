"""Jinja2's sandbox with less in it. Imported when somebody has a template, since Jinja2 takes a while to import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jinja2
from jinja2 import filters, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from triage.templating.sandbox import MOST_NUMBERS, Limits, Open, TemplateError
from triage.templating.values import IN_FORM, as_code, as_link, plain_text

_LARGEST: Final = 10**15

_OFFERED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.Name, nodes.Const,
    nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg,
    nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat, nodes.CondExpr,
    nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword, nodes.List, nodes.Tuple,
)  # fmt: skip
_WORDS: Final = {
    "Macro": "macros", "CallBlock": "call blocks", "Include": "include", "Import": "import", "FromImport": "import",
    "Extends": "extends", "Block": "blocks", "FilterBlock": "filter blocks", "AssignBlock": "set blocks", "Pow": "**",
    "Scope": "autoescape", "NSRef": "namespaces", "Dict": "mappings", "With": "with",
}  # fmt: skip
_LOOP: Final = frozenset({"index", "index0", "first", "last", "length", "revindex", "revindex0"})


class Environment(SandboxedEnvironment):
    """Compiles templates for one form. One drawing at a time."""

    intercepted_binops = frozenset("+-*/%") | {"//"}

    def __init__(self, form: str, limits: Limits) -> None:
        super().__init__(
            autoescape=form == "html",
            finalize=IN_FORM[form],
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=0,
        )
        self._limits = limits
        self.globals = {"range": self.numbers}
        self.filters = {**_FILTERS, **self._growing(), "code": as_code(form), "link": as_link(form)}
        self.tests = {name: test for name, test in self.tests.items() if name in _TESTS}

    def from_source(self, source: str) -> jinja2.Template:
        """Compile a template.

        Raises:
            TemplateSyntaxError, TemplateError: it cannot be, or has in it what is not offered.
        """
        self._limits.begin()
        tree = self.parse(source)
        for node in tree.find_all(nodes.Node):
            _check(node)
        code = self.compile(_Counted().visit(tree), None, "<template>")
        return jinja2.Template.from_code(self, code, {**self.globals})

    # -- values

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``a.b``: a value by its name. Nothing else has attributes, but for the state of a loop."""
        if isinstance(obj, LoopContext):
            return getattr(obj, attribute) if attribute in _LOOP else self.undefined(obj=obj, name=attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """``a['b']``, ``a[0]``."""
        if isinstance(obj, jinja2.Undefined):
            return obj  # says what was not there, when it is shown
        if isinstance(obj, Open):
            return obj.get(argument, obj.missing)
        if isinstance(obj, Mapping):
            return obj[argument] if argument in obj else self.undefined(hint=f"there is no {_short(argument)}")
        if isinstance(obj, str | list | tuple) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(hint=f"there is no {_short(argument)} here")

    def is_safe_callable(self, obj: Any) -> bool:
        """Only what `_Counted` puts in, and ``range``."""
        return obj in (self.turns, self.joined, self.numbers)

    # -- what repeats or grows

    def turns(self, items: Any, parts: int) -> list[Any]:
        """What a loop goes over; its turns are paid in advance."""
        if not isinstance(items, str | list | tuple):
            raise TemplateError("a loop goes over a list")
        self._limits.spend((len(items) + 1) * parts)
        return list(items)

    def numbers(self, *bounds: int) -> list[int]:
        """``range``."""
        found = range(*bounds)
        if len(found) > MOST_NUMBERS:
            raise TemplateError(f"range gives {MOST_NUMBERS:,} numbers at most")
        self._limits.spend(len(found))
        return list(found)

    def joined(self, *values: Any) -> str:
        """``a ~ b``."""
        texts = [value if isinstance(value, str) else plain_text(value) for value in values]
        self._limits.text(sum(map(len, texts)))
        if any(isinstance(text, Markup) for text in texts):
            return Markup("").join(map(escape, texts))
        return "".join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002
        """Numbers are reckoned with; texts can only be added to texts."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return self.joined(left, right)
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise TemplateError(f"{operator} is for numbers" + (", or ~ for texts" if operator == "+" else ""))
        self._limits.spend(1)
        value = self.binop_table[operator](left, right)
        if abs(value) > _LARGEST:
            raise TemplateError("a number is too large")
        return value

    def _growing(self) -> Mapping[str, Callable[..., Any]]:
        def replace(value: Any, old: Any, new: Any) -> str:
            text, before, after = plain_text(value), plain_text(old), plain_text(new)
            self._limits.text(len(text) + (text.count(before) * max(len(after) - len(before), 0) if before else 10**9))
            return text.replace(before, after)

        def join(items: Sequence[Any], separator: str = "", attribute: str | None = None) -> str:
            picked = items if attribute is None else [self.getitem(item, attribute) for item in items]
            texts = [plain_text(item) for item in picked]
            self._limits.text(sum(map(len, texts)) + len(separator) * len(texts))
            return self.joined(*(part for text in texts for part in (separator, text)))[len(separator) :]

        def of_text(change: Callable[..., Any]) -> Callable[..., Any]:
            def changed(value: Any, *args: Any, **kwargs: Any) -> Any:
                text = plain_text(value)
                self._limits.text(len(text))
                return change(text, *args, **kwargs)

            return changed

        def truncate(text: str, length: int = 60) -> str:
            return text if len(text) <= length else f"{text[: max(length - 1, 0)]}…"

        by_text: dict[str, Callable[..., Any]] = {
            "upper": str.upper, "lower": str.lower, "capitalize": str.capitalize, "trim": str.strip,
            "truncate": truncate, "urlencode": filters.do_urlencode, "indent": _indent,
        }  # fmt: skip
        return {"replace": replace, "join": join, **{name: of_text(change) for name, change in by_text.items()}}


def _indent(text: str, width: int = 4) -> str:
    if not 0 <= width <= 16:
        raise TemplateError("indent takes 0 to 16 spaces")
    return text.replace("\n", "\n" + " " * width)


def _length(value: Any) -> int:
    if not isinstance(value, str | list | tuple | dict):
        raise TemplateError("only a text or a list has a length")
    return len(value)


def _default(value: Any, default: Any = "", also_empty: bool = False) -> Any:
    return default if isinstance(value, jinja2.Undefined) or (also_empty and not value) else value


def _number(value: Any) -> str:
    if not isinstance(value, int | float):
        raise TemplateError("number is for numbers")
    return f"{value:,}"


def _pairs(value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise TemplateError("dictsort is for names with values, such as labels")
    return sorted(value.items())


_FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "default": _default, "d": _default, "length": _length, "count": _length, "number": _number, "dictsort": _pairs,
    "first": lambda items: items[0] if items else "", "last": lambda items: items[-1] if items else "",
    "abs": abs, "round": lambda value, digits=0: round(value, min(max(digits, 0), 9)),
}  # fmt: skip
_TESTS: Final = frozenset({
    "defined", "undefined", "none", "string", "number", "odd", "even", "divisibleby", "in", "equalto", "eq", "==", "ne",
    "!=", "lt", "<", "le", "<=", "gt", ">", "ge", ">=", "true", "false", "mapping", "sequence",
})  # fmt: skip


def _short(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | int) else "such value"


def _check(node: nodes.Node) -> None:
    name = type(node).__name__
    line = node.lineno
    if not isinstance(node, _OFFERED):
        raise TemplateError(f"{_WORDS.get(name, name)} cannot be used here", line)
    if isinstance(node, nodes.For) and node.recursive:
        raise TemplateError("recursive loops cannot be used here", line)
    if isinstance(node, nodes.Call) and not (isinstance(node.node, nodes.Name) and node.node.name == "range"):
        raise TemplateError("there is nothing to call but range(); values have no methods, use a filter", line)
    if isinstance(node, nodes.List | nodes.Tuple) and not all(
        isinstance(each, nodes.Const) or (isinstance(each, nodes.Name) and each.ctx == "store") for each in node.items
    ):
        # What holds itself twice, forty times over, takes for ever to compare or to print.
        raise TemplateError("a list holds only texts and numbers", line)


class _Counted(NodeTransformer):
    """Lets loops pay for their turns, and ``~`` for what it makes."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - Jinja2's names
        parts = 1 + sum(1 for _ in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = self._call("turns", [node.iter, nodes.Const(parts)], node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._call("joined", node.nodes, node)

    @staticmethod
    def _call(name: str, args: list[Any], at: nodes.Node) -> nodes.Call:
        call = nodes.Call(nodes.EnvironmentAttribute(name), args, [], None, None, lineno=at.lineno)
        if at.environment is not None:
            call.set_environment(at.environment)
        return call
