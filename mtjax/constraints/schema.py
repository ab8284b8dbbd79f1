"""The JSON schemas of which outlines-core makes an expression that says all that they say."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

# Keywords that say nothing about what is valid.
_NOTES = frozenset(
  ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly")
  + ("$schema", "$id", "$comment", "$defs", "definitions")
)
_OF_TYPE: Mapping[str, frozenset[str]] = {
  "string": frozenset(("minLength", "maxLength", "pattern", "format")),
  "integer": frozenset(),
  "number": frozenset(),
  "boolean": frozenset(),
  "null": frozenset(),
  "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
  "object": frozenset(("properties", "required", "additionalProperties")),
}
# Those of outlines-core's expressions that accept no text which is not JSON: its e-mail addresses
# and addresses of pages may hold quotation marks.
_FORMATS = ("date", "date-time", "time", "uuid")
_SIZES = (("minLength", "maxLength"), ("minItems", "maxItems"))
_OF_VALUE: Mapping[type, tuple[str, ...]] = {
  str: ("string",),
  bool: ("boolean",),
  int: ("integer", "number"),
  float: ("number",),
  type(None): ("null",),
  list: ("array",),
  dict: ("object",),
}
# Each of these says it all: outlines-core ignores what stands beside it.
_ALONE = ("$ref", "const", "enum", "anyOf")


def check_schema(schema: Any) -> None:
  """Raises ValueError, with its place, for a part that would be ignored or is no schema.

  Without this check the numbers of {"type": "integer", "minimum": 5} would be any numbers.
  """
  for part, place in _parts(schema, "the schema"):
    _check_part(part, place)


def string_patterns(schema: Any) -> list[str]:
  """Returns the patterns of strings anywhere in a checked schema, without ^ and $ around them."""
  patterns = [part["pattern"] for part, _ in _parts(schema, "") if "pattern" in part]
  return [own[1:-1] if own[:1] == "^" and own[-1:] == "$" else own for own in patterns]


def _parts(schema: Any, place: str) -> Iterator[tuple[Any, str]]:
  """Yields a schema, then all schemas within it; each with its place, and checked before the next.

  Raises ValueError for anything but objects.
  """
  if not isinstance(schema, Mapping):
    raise ValueError(f"{place} must be an object such as {{'type': 'string'}}, got {schema!r}")
  yield schema, place
  for name in ("$defs", "definitions", "properties"):
    for key, part in schema.get(name, {}).items():
      yield from _parts(part, f"{place}, {name}, {key!r}")
  for name in ("anyOf", "prefixItems"):
    for number, part in enumerate(schema.get(name, ())):
      yield from _parts(part, f"{place}, {name}, {number}")
  if "items" in schema:
    yield from _parts(schema["items"], f"{place}, items")
  # Beside properties no text has others, whatever they would be allowed to be.
  more = schema.get("additionalProperties")
  if isinstance(more, Mapping) and not schema.get("properties"):
    yield from _parts(more, f"{place}, additionalProperties")


def _check_part(schema: Mapping[str, Any], place: str) -> None:
  for name in ("$defs", "definitions", "properties"):
    if not isinstance(schema.get(name, {}), Mapping):
      raise ValueError(f"{place} has {name} {schema[name]!r}: it must be an object")
  for name in ("anyOf", "prefixItems", "enum", "required"):
    if not isinstance(schema.get(name, []), list):
      raise ValueError(f"{place} has {name} {schema[name]!r}: it must be a list")
  keywords = [name for name in schema if name not in _NOTES]
  alone = [name for name in _ALONE if name in schema]
  if alone:
    _check_alone(schema, alone[0], keywords, place)
    return
  declared = schema.get("type")
  kinds: list[Any] = declared if isinstance(declared, list) else [declared]
  if not kinds or not all(isinstance(kind, str) and kind in _OF_TYPE for kind in kinds):
    raise ValueError(
      f"{place} must have a type of {', '.join(_OF_TYPE)}, or one of {', '.join(_ALONE)}; it has "
      f"{'type ' + repr(schema['type']) if 'type' in schema else ', '.join(keywords) or 'neither'}"
    )
  for kind in kinds:
    others = {name for part in kinds for name in _OF_TYPE[part]} - _OF_TYPE[kind]
    _check_type({name: schema[name] for name in schema if name not in others}, kind, place)


def _check_alone(schema: Mapping[str, Any], name: str, keywords: list[str], place: str) -> None:
  beside = [other for other in keywords if other != name]
  if name in ("const", "enum"):
    beside = [other for other in beside if other != "type"]
  if beside:
    raise ValueError(f"{place} has {', '.join(beside)} beside {name}, which would be ignored")
  if name in ("enum", "anyOf") and not schema[name]:
    raise ValueError(f"{place} has nothing in {name}, so no text satisfies it")
  kinds = schema.get("type", [])
  kinds = [kinds] if isinstance(kinds, str) else kinds
  for value in schema[name] if name == "enum" else [schema[name]] if name == "const" else []:
    if kinds and not set(kinds) & set(_OF_VALUE[type(value)]):
      raise ValueError(f"{place} has the value {value!r}, which is not of type {', '.join(kinds)}")


def _check_type(schema: Mapping[str, Any], kind: str, place: str) -> None:
  ignored = [name for name in schema if name not in _OF_TYPE[kind] | _NOTES | {"type"}]
  if kind == "string" and ("pattern" in schema or "format" in schema):
    ignored += [name for name in ("minLength", "maxLength") if name in schema]
    ignored += ["pattern"] if "pattern" in schema and "format" in schema else []
  if kind == "array" and "prefixItems" in schema:
    ignored += [name for name in ("items", "minItems", "maxItems") if name in schema]
  if ignored:
    raise ValueError(
      f"{place}, of type {kind}, has {', '.join(ignored)}: a regular expression cannot express it "
      "here, and it would be ignored"
    )
  for names in _SIZES:
    for name in names:
      size = schema.get(name, 0)
      if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"{place} has {name} {size!r}: it must be a whole number, at least 0")
    low, high = (schema.get(name) for name in names)
    if low is not None and high is not None and low > high:
      raise ValueError(
        f"{place} has {names[0]} {low} above {names[1]} {high}, so no text satisfies it"
      )
  if not isinstance(schema.get("pattern", ""), str):
    raise ValueError(f"{place} has pattern {schema['pattern']!r}: it must be a text")
  if "format" in schema and schema["format"] not in _FORMATS:
    raise ValueError(
      f"{place} has the format {schema['format']!r}; there are {', '.join(_FORMATS)}"
    )
  if kind == "object":
    _check_object(schema, place)


def _check_object(schema: Mapping[str, Any], place: str) -> None:
  properties = schema.get("properties", {})
  for name in properties:
    if json.dumps(name, ensure_ascii=False) != f'"{name}"':
      raise ValueError(f"{place} has the property {name!r}, which JSON must escape: rename it")
  missing = [name for name in schema.get("required", ()) if name not in properties]
  if missing:
    raise ValueError(f"{place} requires {', '.join(map(repr, missing))}, which has no schema")
