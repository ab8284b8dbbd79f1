"""Constraints from regular expressions and JSON schemas, against Python's re and json."""

import itertools
import json
import re
import sys

import numpy as np
import pytest

from mtjax.constraints import compile_tokens, json_schema, regex
from mtjax.constraints.automaton import MAX_ENTRIES, ByteDfa
from mtjax.constraints.schema import check_schema
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer

BYTES = ByteTokenizer()


@pytest.fixture(scope="module")
def bundled():
  return BpeTokenizer.bundled()


@pytest.fixture
def outlines():
  return pytest.importorskip("outlines_core", reason="needs mtjax[constraints]")


PATTERNS = [
  "(ab)?", "(a?b)*", "(a{0,3}b){0,2}", "a|ab|abc", "(a|ab)(c|bc)", "a*?b", "(|a{0,3}b)", "[^a]*",
  "(?i)AB+", ".{0,3}", "", "(a|b)*a(a|b){2}", "((a|b)c?)+",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_texts_are_accepted_that_re_matches(outlines, pattern):
  dfa = regex(BYTES, pattern)
  for size in range(6):
    for letters in itertools.product("abc", repeat=size):
      text = "".join(letters)
      assert dfa.accepts(text.encode()) == bool(re.fullmatch(pattern, text)), text


def test_texts_are_accepted_however_they_are_cut(outlines, bundled):
  dfa = regex(bundled, r"(\w+ ){1,4}[0-9]{2,3}(kg|m|é)?")
  pieces = {piece: token for token, piece in enumerate(bundled.token_bytes()) if piece}
  for text, accepted in [("the king 12kg", True), ("a b c 123é", True), ("the 1kg", False)]:
    assert dfa.accepts(bundled.encode_documents([text])[0]) == accepted
    one_by_one = [pieces[bytes([byte])] for byte in text.encode()]
    assert dfa.accepts(one_by_one) == accepted
  assert not dfa.class_of_token[[*bundled.eos_ids, bundled.pad_id]].any()


def test_a_long_bounded_pattern_is_compiled_in_seconds(outlines):
  dfa = regex(BYTES, "Answer: .{1,300}[.]")
  assert dfa.shortest == 10 and len(dfa.accepting) < 10_000


SCHEMA = {
  "type": "object",
  "properties": {
    "name": {"type": "string", "maxLength": 12},
    "zip": {"type": "string", "pattern": r"^\d{5}$"},
    "size": {"type": ["number", "null"]},
    "tags": {"type": "array", "items": {"enum": ["a", "b.c", 3]}, "minItems": 1, "maxItems": 3},
    "born": {"type": "string", "format": "date"},
    "at": {"anyOf": [{"$ref": "#/$defs/point"}, {"type": "boolean"}]},
  },
  "required": ["name", "zip", "size", "tags"],
  "$defs": {"point": {"type": "array", "prefixItems": [{"type": "integer"}, {"const": None}]}},
}


def check(value):
  """Raises AssertionError unless a value is one of SCHEMA."""
  assert set(value) <= set(SCHEMA["properties"]) and set(value) >= set(SCHEMA["required"])
  assert isinstance(value["name"], str) and len(value["name"]) <= 12
  assert re.fullmatch("[0-9]{5}", value["zip"])
  assert value["size"] is None or isinstance(value["size"], int | float)
  assert 1 <= len(value["tags"]) <= 3 and all(tag in ("a", "b.c", 3) for tag in value["tags"])
  assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value.get("born", "2000-01-01"))
  at = value.get("at", True)
  assert isinstance(at, bool) or (len(at) == 2 and isinstance(at[0], int) and at[1] is None)


def test_texts_of_a_schema_are_valid_json(outlines, bundled):
  dfa = json_schema(bundled, json.dumps(SCHEMA))
  rng, pieces, lengths = np.random.default_rng(0), bundled.token_bytes(), []
  for _ in range(200):
    state, text, left = 0, b"", int(rng.integers(dfa.shortest, 150))
    while not dfa.accepting[state]:
      after = dfa.next[state, dfa.class_of_token]
      fits = (after >= 0) & (dfa.distance[np.maximum(after, 0)] < left)
      # Every kind of token is as probable as another, or the texts are long names.
      kinds = np.unique(dfa.class_of_token[fits])
      token = rng.choice(np.flatnonzero(fits & (dfa.class_of_token == rng.choice(kinds))))
      state, text, left = after[token], text + pieces[token], left - 1
    check(json.loads(text))
    lengths.append(len(text))
  assert len(set(lengths)) > 20


def test_values_of_a_schema_are_accepted(outlines, bundled):
  dfa = json_schema(bundled, SCHEMA)
  value = {"name": "Ann é", "zip": "01234", "size": -1.5e3, "tags": ["b.c", 3], "at": [7, None]}
  text = json.dumps(value, ensure_ascii=False).replace("-1500.0", "-1.5e+3")
  assert dfa.accepts(bundled.encode_documents([text])[0])
  for right, wrong in [("01234", "0123"), ("-1.5e+3", '"1"'), ("[7, null]", "[7.5, null]")]:
    other = text.replace(right, wrong)
    assert other != text and not dfa.accepts(bundled.encode_documents([other])[0]), other


@pytest.mark.parametrize(
  ("pattern", "message"),
  [
    ("(a|b", "cannot be compiled"),
    ("a)(b", "cannot be compiled"),
    ("^ab$", "[$] are left out"),
    ("a(?=b)", "look-around"),
    (r"[^\s\S]", "no text satisfies"),
    ("a[^\\s\\S]", "no text satisfies"),
  ],
)
def test_patterns_that_cannot_be_are_refused(outlines, pattern, message):
  with pytest.raises(ValueError, match=message):
    regex(BYTES, pattern)


def test_a_vocabulary_that_spells_no_text_is_refused(outlines):
  class Vowels:
    def token_bytes(self):
      return [b"a", b"e", b"io", b""]

  assert regex(Vowels(), "[aeiou]{2}").shortest == 1
  with pytest.raises(ValueError, match="no text satisfies the constraint"):
    regex(Vowels(), "a[x-z]|[ou]")
  assert regex(Vowels(), "a[x-z]|e").accepts([1])


@pytest.mark.parametrize(
  ("schema", "message"),
  [
    ("{", "is no JSON"),
    pytest.param(True, "must be an object", marks=pytest.mark.ill_typed),
    ({}, "must have a type"),
    ({"type": "text"}, "type 'text'"),
    ({"enum": []}, "no text satisfies"),
    ({"anyOf": []}, "no text satisfies"),
    ({"type": "integer", "minimum": 5}, "minimum: a regular expression cannot"),
    ({"type": "integer", "const": "a"}, "not of type integer"),
    ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength 5 above maxLength 2, so no"),
    ({"type": "string", "minLength": -1}, "at least 0"),
    ({"type": "string", "minLength": 2, "pattern": "a"}, "minLength: a regular expression"),
    ({"type": "string", "pattern": "a.b"}, "must escape"),
    ({"type": "string", "pattern": "a(b"}, "cannot be compiled"),
    ({"type": "string", "format": "email"}, "format 'email'"),
    ({"allOf": [{"type": "string"}]}, "must have a type"),
    ({"anyOf": [{"type": "null"}], "type": "null"}, "type beside anyOf"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    (
      {"type": "array", "items": {"type": "null"}, "minItems": 3, "maxItems": 2},
      "minItems 3 above maxItems 2, so no text",
    ),
    ({"type": "object", "required": ["b"]}, "requires 'b'"),
    ({"type": "object", "properties": {'a"': {"type": "null"}}}, "rename it"),
    ({"type": "object", "properties": {"a": {"type": "integer", "maximum": 1}}}, "'a'.*maximum"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "Ref"),
  ],
)  # fmt: skip
def test_schemas_that_cannot_be_are_refused(outlines, schema, message):
  with pytest.raises(ValueError, match=message):
    json_schema(BYTES, schema)


def test_the_error_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "outlines_core", None)
  with pytest.raises(ImportError, match=r"mtjax\[constraints\]"):
    regex(BYTES, "a")


def test_tables_are_bounded(monkeypatch):
  """A refusal instead of all memory; the automaton knows a text by its number modulo a prime."""
  size = 4001
  state = np.arange(size)[:, None]
  dfa = ByteDfa((state * 256 + np.arange(256)) % size, np.arange(size) == 0)
  pieces = [bytes([i, j]) for i in range(256) for j in range(256)]
  assert size * size < MAX_ENTRIES < size * len(pieces)
  assert len(compile_tokens(dfa, pieces[:300]).accepting) == size
  monkeypatch.setattr("mtjax.constraints.automaton.MAX_ENTRIES", 10**6)
  with pytest.raises(ValueError, match="make the pattern simpler"):
    compile_tokens(dfa, pieces)


def test_checked_schemas_need_no_library():
  check_schema(SCHEMA)
