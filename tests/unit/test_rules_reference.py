"""The reference page and the JSON Schema say what the loader does."""

import json
import re
from pathlib import Path

import pytest

from triage.errors import RulesInvalid
from triage.rulefiles import default_rules_dir, read_cases, read_rules
from triage.rules import keys
from triage.rules.case_schema import cases_schema
from triage.rules.cases import load_cases
from triage.rules.document import read_document
from triage.rules.grouped import GROUP_BY
from triage.rules.matchers import ERROR_FIELDS, KEYS
from triage.rules.model import SourceText
from triage.rules.schema import rules_schema
from triage.rules.source import load_rules
from triage.subject import VOCABULARY

PAGE = Path(__file__).parents[2].joinpath("docs", "reference", "rules.md").read_text(encoding="utf-8")
SECTIONS = dict(zip(*[iter(re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True))
TITLE = re.compile(r"# (\S+\.yaml)\n")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TABLES = {
    "A file": [*keys.FILE],
    "A rule": [*keys.RULE],
    "match": [*KEYS, *ERROR_FIELDS, *keys.WINDOW],
    "when": [*VOCABULARY],
    "rerun": [*keys.RERUN, *keys.BACKOFF],
    "alert": [*keys.ALERT, *GROUP_BY, *keys.CAUSES, *keys.SEVERITIES],
    "defaults": [*keys.DEFAULTS],
}


@pytest.mark.parametrize("section", TABLES)
def test_every_key_is_documented_in_its_section(section):
    prose = re.sub(r"^```.*?^```$", "", SECTIONS[section], flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`([^`]+)`", prose))

    assert set(TABLES[section]) <= named


@pytest.mark.parametrize("section", ["A file", "A rule", "rerun", "alert", "defaults"])
def test_no_key_is_documented_that_is_not_there(section):
    first = re.search(r"(?:^\|.*\n)+", SECTIONS[section], re.MULTILINE)[0].splitlines()[2:]
    named = {name for row in first for name in re.findall(r"`([^`]+)`", row.split("|")[1])}

    assert named <= set(TABLES[section])


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_loads(example):
    title = TITLE.match(example)
    if title is None:
        assert load_rules([SourceText("example.yaml", example)]).rules
        return
    titled = {found[1]: each for each in EXAMPLES if (found := TITLE.match(each))}
    assert load_rules([SourceText(name, text) for name, text in titled.items()]).rules


def test_the_rule_that_is_commented_out_in_the_shipped_rules_loads():
    (source,) = [each for each in read_rules(default_rules_dir()) if "#   rerun:" in each.text]
    lines = source.text.splitlines()
    first = lines.index("  # - id: thumbnails-again")
    for number in range(first, lines.index("", first)):
        lines[number] = lines[number].replace("# ", "", 1)

    loaded = load_rules([SourceText(source.name, "\n".join(lines))])

    assert loaded.rules[0].id == "thumbnails-again"


def validate(schema, value, root):
    """Enough of JSON Schema to check a rule file: what the schema uses, and nothing else."""
    if schema is True or schema is False:
        return schema
    known = {"description", "title", "$schema", "$defs", "format", "$ref", "type", "enum", "const", "pattern", "minimum",
             "maximum", "minLength", "minItems", "minProperties", "anyOf", "oneOf", "items", "properties", "required",
             "additionalProperties"}  # fmt: skip
    assert set(schema) <= known
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
             "null": type(None)}  # fmt: skip
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    fits = [isinstance(value, kinds[each]) and (each == "boolean" or not isinstance(value, bool)) for each in types]
    checks = [
        "$ref" not in schema or validate(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root),
        not types or any(fits),
        value in schema.get("enum", [value]),
        value == schema.get("const", value),
        not isinstance(value, str) or re.search(schema.get("pattern", ""), value),
        not isinstance(value, str) or len(value) >= schema.get("minLength", 0),
        not isinstance(value, int | float) or schema.get("minimum", value) <= value <= schema.get("maximum", value),
        not isinstance(value, list) or len(value) >= schema.get("minItems", 0),
        "anyOf" not in schema or any(validate(each, value, root) for each in schema["anyOf"]),
        "oneOf" not in schema or sum(bool(validate(each, value, root)) for each in schema["oneOf"]) == 1,
        not isinstance(value, list) or all(validate(schema.get("items", True), each, root) for each in value),
    ]
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        checks += [validate(properties.get(key, more), inner, root) for key, inner in value.items()]
        checks += [set(schema.get("required", [])) <= set(value), len(value) >= schema.get("minProperties", 0)]
    return all(checks)


def plain(text):
    return read_document(SourceText("x", text))[0].root


@pytest.mark.parametrize("text", [*EXAMPLES, *(source.text for source in read_rules(default_rules_dir()))])
def test_the_schema_takes_what_the_loader_takes(text):
    assert validate(rules_schema(), plain(text), rules_schema())


@pytest.mark.parametrize(
    "rule",
    [
        "{id: a}",
        "{id: a, ignore: x, alert: {}}",
        "{id: a, alert: {sevrity: info}}",
        "{id: a, alert: {severity: bad}}",
        "{id: a, alert: {on: [quarantined]}}",
        "{id: a, rerun: {}}",
        "{id: a, rerun: {max_attempts: 101}}",
        "{id: a, rerun: {max_attempts: 1, after: 5}}",
        "{id: a, match: {functon: x}, alert: {}}",
        "{id: a, match: {error: {mesage: x}}, alert: {}}",
        "{id: a, match: {condition: {nto: x}}, alert: {}}",
        "{id: a b, alert: {}}",
        "{id: a, ignore: x, continue: true}",
        "{id: a, ignore: x, hold: y}",
        "{id: a, hold: {for: 1h}}",
        "{id: a, hold: {reason: x, fr: 1h}}",
        "{id: a, alert: {}, mode: on}",
        "{id: a, alert: {}, expires: soon}",
        "{alert: {}}",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(rule):
    text = f"version: 1\nrules: [{rule}]\n"
    with pytest.raises(RulesInvalid):
        load_rules([SourceText("x", text)])
    assert not validate(rules_schema(), plain(text), rules_schema())


@pytest.mark.parametrize(
    ("name", "schema", "option"), [("rules", rules_schema, ""), ("cases", cases_schema, " --cases")]
)
def test_the_shipped_schemas_are_those_of_the_code(name, schema, option):
    shipped = json.loads((default_rules_dir() / f"{name}.schema.json").read_text(encoding="utf-8"))

    assert shipped == schema(), f"triage rules schema{option} > rules/{name}.schema.json"


@pytest.mark.parametrize("text", [each.text for each in read_cases(default_rules_dir()) if each.name.endswith(".yaml")])
def test_the_schema_takes_the_shipped_cases(text):
    assert validate(cases_schema(), plain(text), cases_schema())


@pytest.mark.parametrize(
    "case",
    [
        "{envelope: {}, expect: {}}",
        "{name: a, expect: {}}",
        "{name: a, envelope: {}, message: {}, expect: {}}",
        "{name: a, envelope: {functon: x}, expect: {}}",
        "{name: a, envelope: {status_code: many}, expect: {}}",
        "{name: a, envelope: {}, lineage: {age: 1h}, expect: {}}",
        "{name: a, envelope: {}, expect: {rerun: {after: 5}}}",
        "{name: a, envelope: {}, expect: {alert: {severity: bad}}}",
        "{name: a, envelope: {}, expect: {alert: [{cause: bad}]}}",
        "{name: a, envelope: {}, expect: {nothing: 1}}",
    ],
)
def test_the_schema_refuses_the_cases_that_the_loader_refuses(case):
    text = f"version: 1\ncases: [{case}]\n"
    with pytest.raises(RulesInvalid):
        load_cases([SourceText("a.test.yaml", text)])
    assert not validate(cases_schema(), plain(text), cases_schema())
