"""Which failures are the same failure: a deterministic, versioned fingerprint.

The variable parts of an error message (ids, numbers, addresses, paths, times, quoted texts) are masked; what is left is
hashed with the error type, the function and the condition. The version stands in front, so that a change of the masks
never silently joins or splits groups. What is masked and what is not, and why: ``docs/explanation/fingerprint.md``.

Every pattern takes time linear in the text: it looks a bounded number of characters ahead, or goes through what it
will match anyway. Classes of characters are ASCII, so that neither a locale nor a newer Unicode changes a group.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

VERSION: Final = 1

_HEAD: Final = 1500
_TAIL: Final = 500
"""Characters of a message that are looked at: its beginning, and (a traceback names the error last) its end."""
_HEAD_LEFT: Final = 600
_TAIL_LEFT: Final = 200
"""Characters that count of what is left. Fewer than above: where a text is cut depends on the length of its ids."""
_FIELD: Final = 256
"""Characters of every other field that count."""


def fingerprint(
    *, function: str, condition: str, error_type: str, message: str, stack: str = "", status_code: int | None = None
) -> str:
    """``v1-`` and 16 hexadecimal digits, the same on every replica and after every restart.

    Stack and status code count only when the message says nothing (it is empty, or nothing but variable parts): then
    the innermost frame stands in for it, and without a stack the status.
    """
    said = mask(message)
    if not _says_something(said):
        said += f"\x1f{frame(stack) if stack else status_code}"
    return _hashed(function[:_FIELD], condition[:_FIELD], error_type[:_FIELD], said)


def fingerprint_of(values: Iterable[str]) -> str:
    """The fingerprint that a rule asks for by a list of values. Messages among them are to be masked before."""
    return _hashed("rule", *(value[: _HEAD_LEFT + _TAIL_LEFT + _FIELD] for value in values))


@lru_cache(maxsize=4096)
def _hashed(*parts: str) -> str:
    text = "\x1f".join(parts)
    return f"v{VERSION}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}"


def mask(message: str) -> str:
    """Replace the variable parts of an error message by their kind, in angle brackets, and fold white space."""
    if len(message) <= _HEAD + _TAIL:
        return _masked(message)[: _HEAD_LEFT + _TAIL_LEFT]
    head, tail = _masked(message[:_HEAD]), _masked(message[-_TAIL:])
    return f"{head[:_HEAD_LEFT]} ... {tail[-_TAIL_LEFT:]}"


_AT: Final = re.compile(r"(?:at |#0 |File \")")
_SHIFTING: Final = re.compile(r"0[xX][0-9A-Fa-f]+|[0-9]+")


def frame(stack: str) -> str:
    """The innermost frame of a stack trace, without line numbers and addresses; `ErrorInfo.stack` of any runtime."""
    last = [line for line in map(str.strip, stack[-4000:].split("\n")) if line.startswith('File "')]
    if last:
        found = last[-1]  # Python names the innermost frame last
    else:
        lines = list(filter(None, map(str.strip, stack[:4000].split("\n"))))
        found = next((line for line in lines if _AT.match(line)), lines[0] if lines else "")
    return _SHIFTING.sub("0", found[:_FIELD])


_NOTHING: Final = re.compile(r"(?:<(?:address|arn|mail|path|quoted|time|url|value)>|[^A-Za-z\x80-\U0010ffff])*+")


def _says_something(masked: str) -> bool:
    return _NOTHING.fullmatch(masked) is None


# Texts are cut before they come here: a cache of whole messages could hold gigabytes.
@lru_cache(maxsize=4096)
def _masked(text: str) -> str:
    if '\\"' in text:
        text = text.replace('\\"', '"')  # JSON inside of JSON
    if "=(" in text:
        text = _ROW.sub("=(<value>)", text)
    quoted = _ASCII_QUOTED if text.isascii() else _QUOTED
    masked = _mask_tokens(quoted.sub(_quoted, text))
    if "<quoted>" in masked and not _says_something(masked):
        # Nothing but quoted text, such as the key of a KeyError.
        masked = _mask_tokens(quoted.sub(_quoted, quoted.sub(lambda found: f" {found[0][1:-1]} ", text)))
    return _LISTS.sub(r"\1", masked) if "> <" in masked or ">, <" in masked else masked


_ROW: Final = re.compile(r"=\([^()\n]{0,200}\)")
"""PostgreSQL tells data so: ``Key (email)=(a@b.example) already exists``."""
_ASCII_QUOTED: Final = re.compile(
    r"'(?<![A-Za-z0-9_]')[^'\n]{0,1000}'(?![A-Za-z0-9_])"  # not the apostrophe of: can't
    r"|\"[^\"\n]{0,1000}\"|`[^`\n]{0,1000}`"
)
_QUOTED: Final = re.compile(
    _ASCII_QUOTED.pattern + r"|‘[^‘’\n]{0,1000}’|“[^“”\n]{0,1000}”|«[^«»\n]{0,1000}»|「[^「」\n]{0,1000}」"
)
_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z_$.\\:()-]{0,63}")
_OPEN: Final = " \t:=#-([{<\"'"
_NAMING: Final = frozenset(
    (
        "argument", "attribute", "because", "class", "column", "command", "constraint", "field", "function", "import",
        "index", "invoke", "key", "kind", "method", "module", "name", "named", "operator", "package", "parameter",
        "property", "reading", "relation", "setting", "symbol", "table", "variable",
    )
)  # fmt: skip
_CODING: Final = ("code", "error", "exception", "reason", "status", "type")
"""A quoted name after one of these words (or an ending, of the second) is a piece of a program and not of data."""
_TELLING: Final = ("detail", "details", "description", "error", "message", "msg", "reason", "title")
"""Quoted text after a word that ends so, as in JSON, is the message itself."""


def _quoted(found: re.Match[str]) -> str:
    text, (start, end) = found.string, found.span()
    inside = text[start + 1 : end - 1]
    is_name = _NAME.fullmatch(inside)
    if is_name and text.startswith((":", " object"), end):
        return found[0]  # a key of JSON; 'NoneType' object
    before = text[max(start - 32, 0) : start]
    word = before.rstrip(_OPEN).rpartition(" ")[2].lower()
    if is_name and (word.endswith(_CODING) or word.lstrip(_OPEN) in _NAMING):
        return found[0]
    if word.endswith("code") and _CODE.fullmatch(inside):
        return found[0]
    if " " in inside and before.endswith((":", "=", " ")) and word.endswith(_TELLING):
        return f" {inside} "
    return "<quoted>"


_VARIABLE: Final = re.compile(r"[0-9/\\@]")
"""A word with none of these has no variable part."""
_UNITS: Final = frozenset(
    (
        "b", "byte", "bytes", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "percent", "ns", "us", "ms", "s", "sec",
        "secs", "second", "seconds", "millisecond", "milliseconds", "m", "min", "mins", "minute", "minutes", "h", "hr",
        "hrs", "hour", "hours", "d", "day", "days", "week", "weeks", "month", "months", "year", "years",
    )
)  # fmt: skip
_CALENDAR: Final = frozenset(
    (
        "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday",
        "Saturday", "Sunday", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov",
        "Dec", "January", "February", "March", "April", "June", "July", "August", "September", "October", "November",
        "December", "AM", "PM", "GMT", "UTC", "CST",
    )
)  # fmt: skip
_TIMES: Final = re.compile(r"(?:<value>,? )?<time>(?:,? <(?:time|value)>)*")
_LISTS: Final = re.compile(r"(<[a-z]{3,7}>)(?:[,;]? \1)+")


def _mask_tokens(text: str) -> str:
    """Mask what has digits, slashes or at-signs, word by word, and fold white space."""
    tokens = text.split()
    if not _VARIABLE.search(text):
        return " ".join(tokens)
    masked: list[str] = []
    before = ""
    varied = False
    for index, token in enumerate(tokens):
        if not token.isalpha() and _VARIABLE.search(token):
            if before.rstrip(",.") in _CALENDAR:
                masked[-1] = "<time>"
            found = _NUMBER.fullmatch(token)
            if found and not before.rstrip(_OPEN).lower().endswith(_CODED):
                # As _token would, at a fifth of its cost.
                masked.append(f"{found[1]}<address>{found[4]}" if found[3] else f"{found[1]}<value>{found[4]}")
            else:
                masked.append(_token(token, before, tokens[index + 1 : index + 2]))
            varied = True
        elif varied:
            varied = _after_digits(token, masked)
        else:
            masked.append(token)
        before = token
    result = " ".join(masked)
    return _TIMES.sub("<time>", result) if "<time>" in result else result


_NUMBER: Final = re.compile(
    r"([(\[{\"']*)"
    r"(?:((?![45][0-9]{2}(?![0-9A-Za-z.%]))[+-]?[0-9]+(?:\.[0-9]+)?[A-Za-z%]{0,3}|[0-9A-Fa-f]{8,64})"
    r"|([0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]{1,5})?))"
    r"([)\]},.;:\"']*)"
)


def _after_digits(token: str, masked: list[str]) -> bool:
    """Take a word that may belong to the number or date before it; whether the next one may, too."""
    word = token.rstrip(".,;:)]")
    if word in _CALENDAR:
        masked.append("<time>")
        return True
    if word.lower() in _UNITS and masked[-1].endswith("<value>"):
        masked[-1] += token[len(word) :]
    else:
        masked.append(token)
    return False


_URL: Final = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}://[^\s'\"<>]*")
_ARN: Final = re.compile(r"(?<![A-Za-z0-9])(?:acs|arn):[a-z-]{2,20}:[^\s'\"<>,;()]*")
_MAIL: Final = re.compile(r"(?<![A-Za-z0-9_.+-])[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_LONG: Final = re.compile(  # tokens, signatures, base64
    r"(?<![A-Za-z0-9+/_-])(?:eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|(?=(?:[A-Za-z+/_-]*[0-9]){3})(?=[a-z0-9+/_-]*[A-Z])(?=[A-Z0-9+/_-]*[a-z])[A-Za-z0-9+/_-]{28,}={0,2})"
)
_PATH: Final = re.compile(
    r"(?<![A-Za-z0-9_.<>~/*)])(?:~|\.\.?)?/[^\s:;,()\[\]{}'\"<>|]*"
    r"|(?<![A-Za-z0-9])[A-Za-z]:\\[^\s:;,()\[\]{}'\"<>|]*"
    r"|(?<![A-Za-z0-9\\])\\\\[A-Za-z0-9][^\s:;,()\[\]{}'\"<>|]*"
)
_CLOCK: Final = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
_DATE: Final = r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{4}/[0-9]{1,2}/[0-9]{1,2}"
_DIGITS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    rf"(?P<time>(?:(?:{_DATE})(?:[T_]{_CLOCK})?|[0-9]{{1,2}}[-/](?:[A-Z][a-z]{{2}}|[0-9]{{1,2}})[-/][0-9]{{4}}(?::{_CLOCK})?"
    rf"|[0-9]{{8}}T[0-9]{{6}}Z?|(?<!:){_CLOCK})(?![A-Za-z0-9:]))"
    r"|(?P<address>[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9.])(?::[0-9]{1,5})?(?:/[0-9]{1,2})?"
    r"|\[[0-9A-Fa-f:.]{2,45}\]:[0-9]{1,5}"
    r"|(?<![:.])(?=[0-9A-Fa-f]|::)(?:[0-9A-Fa-f]{0,4}:){2,8}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}|[0-9]{5})(?![A-Za-z0-9:]))"
    r"|(?P<value>[0-9A-Fa-f]{1,8}(?:-[0-9A-Fa-f]{4,12}){2,4}(?![A-Za-z0-9])"  # UUID, and the request ids of FC 3
    r"|(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{8,}+(?![A-Za-z0-9])(?:[-_][A-Za-z0-9]+)*"
    r"|(?:[0-9]+[A-Za-z]+[0-9]|[A-Za-z]+[0-9]+[A-Za-z])[A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*"  # no word: k3x9-q2
    r"|(?P<word>[A-Za-z]+)[0-9]+|[+-]?[0-9]+(?:[.,:/][0-9]+)*[A-Za-z0-9%]*))"
)


def _token(token: str, before: str, after: Sequence[str]) -> str:
    if "://" in token:
        token = _URL.sub("<url>", token)
    if "acs:" in token or "arn:" in token:
        token = _ARN.sub("<arn>", token)
    if "@" in token:
        token = _MAIL.sub("<mail>", token)
    if len(token) >= 28:
        token = _LONG.sub("<value>", token)
    if "/" in token or "\\" in token:
        token = _PATH.sub("<path>", token)

    def replace(found: re.Match[str]) -> str:
        if found.lastgroup != "value":
            return f"<{found.lastgroup}>"
        text, word = found[0], found["word"] or ""
        if len(text) <= 8 and _is_code(text, word, token[max(found.start() - 32, 0) : found.start()] or before, after):
            return text
        return f"{word}<value>"

    return _DIGITS.sub(replace, token)


_CODED: Final = ("code", "status", "errno", "error", "exit", "signal", "sqlstate", "http", "ora")
_CODE: Final = re.compile(r"-?[0-9]{1,5}|[0-9A-Z]{1,8}|[1-5]xx")
_ANSWER: Final = re.compile(r"[45][0-9]{2}")
_ANSWERED: Final = frozenset(
    ("answered", "got", "http/1.0", "http/1.1", "http/2", "received", "response", "returned", "with")
)
_PHRASE: Final = re.compile(r"[A-Z][a-z]")


def _is_code(text: str, word: str, before: str, after: Sequence[str]) -> bool:
    """Whether a number tells causes apart: exit code 137, status=503, HTTP404, ORA-00942, 404 Not Found."""
    context = before.lower()
    if context.rstrip(_OPEN).endswith(_CODED) and not context.endswith("error:"):
        return _CODE.fullmatch(text) is not None
    if _ANSWER.fullmatch(text):
        return context in _ANSWERED or bool(after and _PHRASE.match(after[0]))
    return word.lower() == "http"
