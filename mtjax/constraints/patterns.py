"""Constraints from a regular expression or a JSON schema, by way of outlines-core."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mtjax.constraints.automaton import ByteDfa, TokenDfa, compile_tokens
from mtjax.constraints.schema import check_schema, string_patterns

# A JSON schema's patterns are those of ECMAScript, in which these are ASCII.
_ASCII = {"d": "[0-9]", "D": "[^0-9]", "w": "[0-9A-Za-z_]", "W": "[^0-9A-Za-z_]"}
# The bytes that JSON escapes in a string.
_ESCAPED = (*range(0x20), ord('"'), ord("\\"))
# Ids beside those of the bytes: an end token, which outlines-core needs, and the first of the pairs
# of a zero and a byte.
_END, _BEGIN = 256, 257


@runtime_checkable
class WithTokenBytes(Protocol):
  """The part of a tokenizer that a constraint needs."""

  def token_bytes(self) -> Sequence[bytes]:
    """Returns the bytes of each id in running text; special tokens have none."""
    ...


def regex(tokenizer: WithTokenBytes, pattern: str) -> TokenDfa:
  r"""Returns the constraint that a whole text matches a regular expression.

  The syntax is that of Rust's `regex`, on the UTF-8 bytes of a text: no look-around and no
  back-references, and classes such as \d are those of Unicode ([0-9] is shorter in bytes and
  states). The pattern always matches from the beginning to the end, without ^ and $. No text has
  the character of number 0.

  Example: `model.generate(prompts, constraint=regex(model.tokenizer, "(yes|no)[.!]"))`.

  Raises ImportError without mtjax[constraints], and ValueError for a pattern that is no such
  expression, that no text of this vocabulary matches, or whose tables are too large.
  """
  return compile_tokens(_byte_dfa(pattern), tokenizer.token_bytes())


def json_schema(
  tokenizer: WithTokenBytes, schema: str | Mapping[str, Any], *, whitespace: str | None = None
) -> TokenDfa:
  """Returns the constraint that a text is JSON of a schema, by way of a regular expression.

  The expression is that of `schema_pattern`. Raises ImportError without mtjax[constraints], and
  ValueError as `schema_pattern` and `regex` do.
  """
  return regex(tokenizer, schema_pattern(schema, whitespace=whitespace))


def schema_pattern(schema: str | Mapping[str, Any], *, whitespace: str | None = None) -> str:
  """Returns a regular expression, as `regex` takes it, of texts that are JSON of a schema.

  Every accepted text is valid, but not every valid text is accepted: objects have their properties
  in the order of the schema and no others, and there is at most one space between two parts.
  `whitespace`: a pattern of what may stand there instead. Keywords that a regular expression cannot
  express, or that outlines-core would ignore, are refused (`mtjax.constraints.schema`).

  Raises ImportError without mtjax[constraints], and ValueError for a text that is no JSON, a schema
  that is not valid, and one with keywords of no effect.
  """
  if isinstance(schema, str):
    try:
      schema = json.loads(schema)
    except json.JSONDecodeError as error:
      raise ValueError(f"the schema is no JSON: {error}") from None
  check_schema(schema)
  build = _outlines_core().json_schema.build_regex_from_schema
  try:
    pattern = build(json.dumps(schema), whitespace)
  except ValueError as error:
    raise ValueError(f"no regular expression can be made of the schema: {error}") from None
  for inner in string_patterns(schema):
    own = _byte_dfa(_ascii(inner))
    if (own.next[:, _ESCAPED] >= 0).any():
      raise ValueError(
        f"the pattern {inner!r} of a string may match quotation marks, backslashes or control "
        'characters, which JSON must escape: leave them out, as in [^"\\\\\\x00-\\x1f]'
      )
  return _ascii(pattern)


def _ascii(pattern: str) -> str:
  return re.sub(r"\\(.)", lambda found: _ASCII.get(found[1], found[0]), pattern, flags=re.DOTALL)


def _byte_dfa(pattern: str) -> ByteDfa:
  """Returns the automaton of a pattern over bytes: outlines-core's, for a vocabulary of them.

  Two properties of outlines-core 0.2 make a pattern P be compiled as 0P0 or nothing, where 0 is the
  character of that number. It drops transitions from an accepted text into one that is not, such as
  from "1" to "1." on the way to "1.5": before the last 0 nothing is accepted. And it also compiles
  the search for P anywhere in a text, with a state for each set of places where P may have begun,
  which takes all memory for ".{1,1000}[.]": a pattern that may be nothing is found at once.
  The first two bytes are one token, because the transitions after nothing are among the dropped.
  """
  library = _outlines_core()
  tokens = {bytes([byte]): [byte] for byte in range(256)}
  tokens |= {bytes([0, byte]): [_BEGIN + byte] for byte in range(256)}
  vocabulary = library.Vocabulary(_END, tokens)
  try:
    library.Index(f"{pattern}|", vocabulary)  # "a)(b" is a pattern in brackets, and not without
    index = library.Index(f"(?:\\x00(?:{pattern})\\x00|)", vocabulary)
  except ValueError as error:
    if "incompatible with the regex" in str(error):
      raise ValueError(
        f"no text satisfies the regular expression {pattern!r}, or a part of it such as [^\\s\\S]"
      ) from None
    raise ValueError(
      f"the regular expression {pattern!r} cannot be compiled ({error}); it matches whole texts, "
      "so ^ and $ are left out, and it has no look-around and no back-references"
    ) from None
  transitions, final = index.get_transitions(), index.get_final_states()
  start = index.get_initial_state()
  rows = {
    start: {token - _BEGIN: to for token, to in transitions[start].items() if token >= _BEGIN}
  }
  rows |= {state: row for state, row in transitions.items() if state != start}
  number = {state: place for place, state in enumerate(rows)}
  after = np.full((len(number), 256), -1, np.int32)
  accepting = np.zeros(len(number), bool)
  for state, row in rows.items():
    accepting[number[state]] = row.get(0) in final
    for byte, target in row.items():
      if 0 < byte < 256:
        after[number[state], byte] = number[target]
  return ByteDfa(after, accepting)


def _outlines_core() -> Any:
  try:
    import outlines_core
  except ImportError as error:
    raise ImportError(
      "constraints from patterns need outlines-core: pip install 'mtjax[constraints]'"
    ) from error
  return outlines_core
