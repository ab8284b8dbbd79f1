"""Constraints on texts: a regular expression or a JSON schema as an automaton over tokens.

Decoding with a constraint samples each token from the model's distribution over those tokens after
which the text can still be accepted, renormalised, and an end token is among them exactly where the
text is accepted as it is. With a limit of tokens, "can still be accepted" means within the tokens
that are left, so a text is always accepted, whether an end token or the limit ends it. Speculative
decoding keeps this distribution as its verifier promises to.

This is what is called constrained decoding everywhere. It is not the model's distribution over
whole texts given that they are accepted: a token whose later continuations the model finds unlikely
is not punished for it (Park et al., 2405.21047, call the difference the grammar's distortion).
"""

from mtjax.constraints.automaton import ByteDfa, TokenDfa, compile_tokens
from mtjax.constraints.batch import Constraint, join
from mtjax.constraints.patterns import json_schema, regex

__all__ = [
  "ByteDfa",
  "Constraint",
  "TokenDfa",
  "compile_tokens",
  "join",
  "json_schema",
  "regex",
]
