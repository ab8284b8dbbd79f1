"""Constraints on texts: a regular expression or a JSON schema as an automaton over tokens.

With a constraint, each token is sampled from the model's distribution, restricted to the tokens
after which the text can still be accepted, and renormalised. An end token is allowed exactly where
the text so far is accepted. If the number of tokens is limited, the text must be accepted within
the tokens that are left. So every text is accepted, whether an end token or the limit ends it.
Speculative decoding keeps this distribution as far as its verifier keeps distributions.

This is what is called constrained decoding everywhere. It is not the model's distribution over
whole texts given that they are accepted: a token whose later continuations the model finds unlikely
is not punished for it (Park et al., 2405.21047, call the difference the grammar's distortion).
"""

from mtjax.constraints.automaton import ByteDfa, TokenDfa, compile_tokens
from mtjax.constraints.batch import Constraint, join
from mtjax.constraints.patterns import json_schema, regex, schema_pattern

__all__ = [
  "ByteDfa",
  "Constraint",
  "TokenDfa",
  "compile_tokens",
  "join",
  "json_schema",
  "regex",
  "schema_pattern",
]
