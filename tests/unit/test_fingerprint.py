"""Failures with one cause have one fingerprint, failures with another have another, on every machine."""

import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage import fingerprint as module
from triage.facts import Arrival
from triage.fingerprint import fingerprint, frame, mask

CORPUS = Path(__file__).parent.parent / "data" / "fingerprints" / "corpus.jsonl"


# --- what is masked ---------------------------------------------------------------------------------------------------

MASKS = {
    "number": ("took 5 of 10000", "took <value> of <value>"),
    "number with a unit": ("Function timed out after 60 seconds (maxMemoryUsage: 8MB)", "Function timed out after <value> (maxMemoryUsage: <value>)"),
    "sizes": ("8MB, 512.00MB and 1.5 GiB", "<value> and <value>"),
    "share": ("at 3.5% of 100 percent.", "at <value> of <value>."),
    "duration": ("after 1h30m", "after <value>"),
    "request id of FC 3": ("1-670648a1-15197d0b-d07710222f9d failed", "<value> failed"),
    "request id of FC 3, all digits": ("1-67064811-15197201-107710222919 failed", "<value> failed"),
    "UUID": ("request 7A5B1F0E-3c2d-4b1a-9f8e-0d1c2b3a4f5e", "request <value>"),
    "hexadecimal": ("commit 5f2a0c9be1 and 0x7ffDEAD0", "commit <value> and <value>"),
    "hexadecimal, all digits": ("commit 5120190111", "commit <value>"),
    "hexadecimal, begins with letters": ("key abcdef12", "key <value>"),
    "object": ("<app.Job object at 0x7f00a1>", "<app.Job object at <value>>"),
    "java object": ("com.example.Order@1b2c3d4e", "com.example.Order@<value>"),
    "id with a prefix": ("i-0abc12def, user_17, order-9f8e7, req_x1y2z3", "i-<value>, user_<value>, order-<value>, req_<value>"),
    "pod": ("pod web-7d9f8b6c5-x2x9z", "pod web-<value>"),
    "word with a number": ("worker7 uses sha256", "worker<value> uses sha<value>"),
    "IPv4": ("from 10.0.0.1 to 10.0.0.1:3306 in 10.0.0.0/8", "from <address> to <address> in <address>"),
    "IPv6": ("from ::1 to fe80::1c:22, [2001:db8::1]:443", "from <address> to <address>"),
    "hardware address": ("eth 0a:1b:2c:3d:4e:5f", "eth <address>"),
    "host and port": ("db.example.com:5432", "db.example.com:<value>"),
    "URL": ("GET https://api.example.com/v1/a?b=c#d failed", "GET <url> failed"),
    "JDBC URL": ("jdbc:mysql://db:3306/app?useSSL=false", "jdbc:<url>"),
    "mail": ("no mailbox for a.b+c@mail.example.org.", "no mailbox for <mail>."),
    "unix path": ("cannot open /tmp/a-1.txt: is a directory", "cannot open <path>: is a directory"),
    "path from home or here": ("~/x/y ./run.sh ../a/b", "<path>"),
    "path with a position": ("at handler (/code/index.js:10:25)", "at handler (<path>:<value>)"),
    "windows path": (r"cannot open C:\Temp\a b.txt or \\server\share\x", "cannot open <path> b.txt or <path>"),
    "no path": ("N/A and/or read/write I/O", "N/A and/or read/write I/O"),
    "date and time": ("at 2026-03-01T12:00:57.123Z, 2026-03-01 12:00:57,123 +0800", "at <time>"),
    "date": ("on 2026/03/01, 01/Mar/2026:12:00:57, 20260301T120057Z", "on <time>"),
    "date in words": ("since Wed, 09 Oct 2024 09:10:57 GMT", "since <time>"),
    "date in words, american": ("since Oct 9, 2024 9:10 PM", "since <time>"),
    "time of day": ("[09:10:57] down", "[<time>] down"),
    "quoted": ("cannot open 'a.txt', \"b\", `c`, “d” or 「e」", "cannot open <quoted> or <quoted>"),
    "quoted nothing": ("no user ''", "no user <quoted>"),
    "apostrophes": ("can't find it, don't know 'x'", "can't find it, don't know <quoted>"),
    "long token": ("token eyJhbGciOiJIUzI1.eyJzdWIiOiI.c2ln-x_ and dGhpcyBpcyBhIHRlc3QgMTIzNDU2Nzg5MA==", "token <value> and <value>"),
    "ARN": ("acs:fc:cn-hangzhou:1034354682:functions/f and acs:ram::12:role/r", "<arn> and <arn>"),
    "rows of PostgreSQL": ("Key (name, city)=(Alice Smith, Ulm) already exists.", "Key (name, city)=(<value>) already exists."),
    "list": ("ids [1, 2, 3] and 4,5,6", "ids [<value>] and <value>"),
    "white space": ("a\n\tb   c\r\n", "a b c"),
    "no spaces": ("用户12345不存在", "用户<value>不存在"),
    "JSON inside of JSON": (r'{\"id\":\"a b\",\"n\":5}', '{"id":<quoted>,"n":<value>}'),
}  # fmt: skip


@pytest.mark.parametrize(("message", "masked"), MASKS.values(), ids=MASKS)
def test_what_varies_is_masked(message, masked):
    assert mask(message) == masked


# What tells causes apart stays.
KEPT = {
    "HTTP status": "Request failed with status code 404",
    "HTTP status before its phrase": "503 Server Error: Service Unavailable",
    "HTTP status in a pair": "status=502 from upstream",
    "HTTP status in one word": "HTTP404",
    "answer": "upstream returned 503",
    "exit code": "exit code 137",
    "negative exit code": "return code: -11",
    "errno": "[Errno 111] Connection refused",
    "error number": "Error 1045 (denied)",
    "SQLSTATE": "SQLSTATE[42S02]: not found",
    "Oracle": "ORA-00942: table or view does not exist",
    "code in JSON": '{"code":"E1001","status":404}',
    "module": "No module named 'requests'",
    "property": "Cannot read properties of undefined (reading 'id')",
    "attribute": "'NoneType' object has no attribute 'get'",
    "column": 'column "price" of relation "orders" does not exist',
    "code that is called": 'Cannot invoke "com.example.Order.getId()" because "order" is null',
    "class": "Class 'App\\Models\\User' not found",
    "key of an error": "KeyError: 'order_id'",
    "name in JSON": '{"Code":"NoSuchKey"}',
    "name in a dict": "{'Code': 'NoSuchKey'}",
}


@pytest.mark.parametrize("message", KEPT.values(), ids=KEPT)
def test_what_tells_causes_apart_stays(message):
    assert mask(message) == message


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("'order_id'", "order_id"),
        ("'ORD-17'", "ORD-<value>"),
        ("(1045, \"Access denied for user 'bob'@'10.0.0.1'\")", "(<value>, Access denied for user <quoted>@<quoted> )"),
        ('{"message":"The disk of 5 GB is full"}', '{"message": The disk of <value> is full }'),
        ("''", ""),
    ],
)
def test_a_message_that_is_all_quoted_is_taken_out_of_its_quotes(message, masked):
    assert mask(message) == masked


def test_the_status_after_the_version_of_http_stays():
    assert mask("HTTP/1.1 429") == "HTTP/<value> 429"


def test_numbers_after_error_and_a_colon_are_no_codes():
    assert mask("Error: 17 rows failed") == mask("Error: 404 rows failed") == "Error: <value> rows failed"


# --- what the fingerprint is made of ----------------------------------------------------------------------------------

FIELDS = {"function": "f", "condition": "c", "error_type": "T", "message": "m"}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_counts(field):
    assert fingerprint(**FIELDS) != fingerprint(**FIELDS | {field: "other"})


def test_fields_do_not_run_into_each_other():
    assert fingerprint(function="ab", condition="", error_type="", message="") != fingerprint(
        function="a", condition="b", error_type="", message=""
    )


def test_stack_and_status_do_not_count_beside_a_message():
    assert fingerprint(**FIELDS) == fingerprint(**FIELDS, stack="at a (x:1)", status_code=500)


@pytest.mark.parametrize("message", ["", "''", "17", " \n", "2026-03-01", "/tmp/a", "?!"])
def test_for_a_message_that_says_nothing_the_innermost_frame_counts(message):
    fields = FIELDS | {"message": message}
    a, a_later, b = (
        fingerprint(**fields, stack=f"at {name} (/code/x.js:{line}:2)")
        for name, line in [("f", 3), ("f", 47), ("g", 3)]
    )

    assert a == a_later != b


def test_without_message_and_stack_the_status_counts():
    fields = FIELDS | {"message": ""}

    assert len({fingerprint(**fields, status_code=code) for code in (None, 200, 500, 503)}) == 4


FRAMES = {
    "python": ('File "/rt/boot.py", line 7, in run, f()\nFile "/code/a.py", line 12, in work, raise E', 'File "/code/a.py", line 0, in work, raise E'),
    "python, as printed": ('Traceback (most recent call last):\n  File "/code/a.py", line 12, in work\n    raise E\nE', 'File "/code/a.py", line 0, in work'),
    "node": ("Error: oops\n    at handler (file:///code/index.mjs:2:9)\n    at run", "at handler (file:///code/index.mjs:0:0)"),
    "java": ("com.x.A.b(A.java:10)\ncom.x.C.d(C.java:3)", "com.x.A.b(A.java:0)"),
    "java lambda": ("com.x.A$$Lambda$14/0x0000000800c3.run(A.java)", "com.x.A$$Lambda$0/0.run(A.java)"),
    "go": ('{"path": "main.go", "line": 7, "label": "main"}', '{"path": "main.go", "line": 0, "label": "main"}'),
    "php": ("#0 /code/index.php(3): handler()\n#1 {main}", "#0 /code/index.php(0): handler()"),
    "dotnet": ("   at A.B.C(String d) in /src/B.cs:line 12\n   at E.F()", "at A.B.C(String d) in /src/B.cs:line 0"),
    "none": ("\n \n", ""),
}  # fmt: skip


@pytest.mark.parametrize(("stack", "innermost"), FRAMES.values(), ids=FRAMES)
def test_the_innermost_frame_of_every_runtime(stack, innermost):
    assert frame(stack).replace("#0 /", "#0 /") == innermost


# --- the same everywhere ----------------------------------------------------------------------------------------------


def test_a_change_of_the_masks_needs_a_new_version():
    """Stored groups carry these. When this test fails, raise VERSION: else groups are joined or split unseen."""
    assert module.VERSION == 1
    assert fingerprint(**FIELDS) == "v1-297569b2d72890b6"
    digest = Counter(arrived(record).fingerprint for record in records())
    assert module._hashed(*sorted(digest)) == "v1-99e1a3621838aa55"


SCRIPT = """
import sys
from triage.fingerprint import fingerprint
for line in open(sys.argv[1], encoding="utf-8"):
    print(fingerprint(function="İstanbul", condition="ﬁ", error_type="T", message=line))
"""


def test_every_replica_gives_the_same():
    def replica(**environment: str) -> bytes:
        env = {**os.environ, **environment}
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, str(CORPUS)], env=env, capture_output=True, check=True
        ).stdout

    here = replica(PYTHONHASHSEED="1", LC_ALL="C")
    assert here == replica(PYTHONHASHSEED="77", LC_ALL="tr_TR.UTF-8", PYTHONUTF8="1", TZ="Asia/Shanghai")
    assert len(here.splitlines()) == len(records())


# --- any text, in bounded time ----------------------------------------------------------------------------------------


@given(st.text() | st.text(alphabet="aF1'\"/\\@:.-_ <>[](){}=+\n"))
def test_any_text_has_a_fingerprint(text):
    assert fingerprint(function=text, condition=text, error_type=text, message=text, stack=text).startswith("v1-")


@given(st.from_regex(r"[(\[\"']?-?[0-9A-Fa-f.]{1,12}[A-Za-z%]{0,3}[)\].,:]?", fullmatch=True))
def test_the_short_way_for_numbers_gives_what_the_long_one_gives(token):
    short = module._NUMBER.fullmatch(token)
    if short and module._VARIABLE.search(token):
        kind = "address" if short[3] else "value"
        assert f"{short[1]}<{kind}>{short[4]}" == module._token(token, "", [])


def test_a_long_message_counts_with_its_beginning_and_its_end():
    middle = "x y " * 1000
    one, other = (mask(f"{'9' * n} began {middle} ended {n}") for n in (1, 60))

    assert one == other
    assert one != mask(f"1 began {middle} stopped 1")
    assert one != mask(f"1 started {middle} ended 1")
    assert len(one) < 1000


HOSTILE = {
    "digits": "1" * 2000, "letters": "a" * 2000, "hex": "deadbeef1" * 222, "switches": "a1" * 1000,
    "dots": "1." * 1000, "almost addresses": "1.1.1." * 333 + "x", "colons": "1:" * 1000, "double colons": "::" * 1000,
    "dashes": "a1-" * 666, "underscores": "_1" * 1000, "slashes": "/" * 2000, "dotted slashes": "../" * 666,
    "backslashes": "a:\\" * 666, "ats": "a@" * 1000, "mail without end": "a@a" + ".a" * 998, "schemes": "a+" * 1000 + "1",
    "almost URLs": "a:/" * 666, "almost ARNs": "acs:a" * 400 + "1", "quotes": "'" * 1999 + "1", "open quotes": " '1" * 666,
    "open double quotes": "\"'" * 999 + "1", "curly quotes": "“1" * 1000, "guillemets": "«" * 1999 + "1", "rows": "=(1" * 666,
    "base64": "aA1" * 666 + "!", "almost base64": "aA" * 999 + "!1", "tokens": "eyJ1." * 400, "almost tokens": "eyJ1" * 500,
    "months": "May 1 " * 333, "units": "1 s " * 500, "lists": "1, " * 666, "masks": "<value>" * 285 + "1", "times": "1:11:" * 400,
    "dates": "2026-03-01" * 200, "codes": "code: 1 " * 250, "brackets": "[1" * 1000, "escapes": '\\"' * 999 + "1", "chinese": "用1" * 1000,
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_time_is_linear_in_the_text(text):
    def seconds(what: str) -> float:
        best = 1.0
        for _ in range(5):
            start = time.thread_time()
            module._masked.__wrapped__(what)
            best = min(best, time.thread_time() - start)
        return best

    whole = seconds(text)
    assert whole < 0.05
    # Twice the text takes twice the time; four times would be a square.
    assert seconds(text * 8) < 8 * 2.5 * max(whole, 0.000_1)


def test_what_is_cached_is_bounded():
    for n in range(50):
        mask(f"{n}" + "x" * 1_000_000)

    assert sys.getsizeof("x" * 2000) < 3000
    assert module._masked.cache_info().maxsize == 4096


# --- how well -----------------------------------------------------------------------------------------------------------


def records() -> list[dict]:
    return [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


def arrived(record: dict) -> Arrival:
    """The failure as it comes from the queue: the fingerprint is taken of what the parser makes of it."""
    return make.arrived(
        make.envelope(
            condition=record["condition"],
            function_error=record["condition"],
            status=record["status"],
            responsePayload=record["payload"],
        )
    )


def test_purity_and_completeness_of_the_corpus():
    """Purity: share of failures in whose group their own class is the most frequent one (are groups of one cause?).
    Completeness: share of failures in the largest group of their class (is a cause in one group?).
    """
    groups, classes = defaultdict(Counter), defaultdict(Counter)
    for record in records():
        group = arrived(record).fingerprint
        groups[group][record["class"]] += 1
        classes[record["class"]][group] += 1
    total = sum(sum(counts.values()) for counts in classes.values())
    purity = sum(max(counts.values()) for counts in groups.values()) / total
    completeness = sum(max(counts.values()) for counts in classes.values()) / total

    assert total >= 400
    assert len(classes) >= 60
    assert purity >= 0.95, {tuple(counts) for counts in groups.values() if len(counts) > 1}
    assert completeness >= 0.95, {name: len(counts) for name, counts in classes.items() if len(counts) > 1}


def test_what_looks_alike_and_is_not_the_same_stays_apart():
    by_family: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in records():
        family = record["class"].rpartition("/")[0]
        by_family[family][record["class"]].add(arrived(record).fingerprint)
    for family, classes in by_family.items():
        seen = [group for groups in classes.values() for group in groups]
        assert len(seen) == len(set(seen)), family
