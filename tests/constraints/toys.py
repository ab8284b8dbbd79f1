"""Automata that are small enough to list all their texts, written by hand."""

import itertools

import numpy as np

from mtjax.constraints import TokenDfa
from mtjax.constraints.automaton import trimmed


def dfa_of(rows: list[dict[int, int]], accepting: set[int], vocab: int) -> TokenDfa:
  """The automaton with a state per row, {token: next state}; state 0 is the start."""
  after = np.full((len(rows), vocab), -1, np.int32)
  for state, row in enumerate(rows):
    for token, target in row.items():
      after[state, token] = target
  return trimmed(np.arange(vocab), after, np.isin(np.arange(len(rows)), list(accepting)))


def complete_texts(dfa: TokenDfa, length: int, vocab: int, eos: int) -> list[tuple[int, ...]]:
  """All accepted texts of `length` tokens, where an end token is followed by end tokens.

  By trying every sequence; no table but the automaton's own transitions is used.
  """
  out = []
  for text in itertools.product(range(vocab), repeat=length):
    size = text.index(eos) if eos in text else length
    if set(text[size:]) <= {eos} and dfa.accepts(text[:size]):
      out.append(text)
  return out
