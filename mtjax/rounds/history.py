"""The history of a run, recorded on request: trees and verdicts, or decided entries, and time.

Plain Python, so that it survives JSON as it is: `to_json` and `from_json` are each other's inverse.
A history is a list of `RoundRecord`, first to last.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class TreeRecord:
  """The tree of one row in one round, and what the verifier accepted of it.

  It has the nodes that could be accepted, parents before children; node 0 is the root, the token
  emitted before the round. Without a draft the tree is the root alone.
  """

  tokens: tuple[int, ...]
  parents: tuple[int, ...]  # -1 for the root
  # q(token | path to its parent), where the drafter samples: a node's first child is sampled from
  # q, at the request's temperature. None for the root and for drafts chosen by a rule.
  draft_probs: tuple[float | None, ...]
  path: tuple[int, ...]  # the root, then the accepted nodes that were emitted
  bonus: int | None  # the target's own token after them; None: the text ended with a draft
  # p(token | path to its parent), where p is the target's distribution at the request's settings;
  # of greedy requests it is that at temperature 1. None for the root; empty in a file of JSON that
  # was written before there were any.
  target_probs: tuple[float | None, ...] = ()
  bonus_prob: float | None = None  # p(bonus | accepted path)

  @property
  def emitted(self) -> tuple[int, ...]:
    """The tokens that the round added to the row."""
    bonus = () if self.bonus is None else (self.bonus,)
    return tuple(self.tokens[node] for node in self.path[1:]) + bonus


@dataclasses.dataclass(frozen=True)
class PassRecord:
  """The tokens that one forward pass of filling decided in one row."""

  number: int  # number of the pass among those of the row, from 1
  entries: tuple[int, ...]  # places of the decided entries, in the order of the fill
  tokens: tuple[int, ...]
  # log p(token), where p is what the pass sampled the token from or judged the draft against; of
  # greedy requests it is that at temperature 1.
  log_probs: tuple[float, ...]
  drafted: tuple[bool, ...]  # true for accepted drafts


@dataclasses.dataclass(frozen=True)
class RoundRecord:
  """One round of the batch.

  `seconds` is the time of each stage by its name, without compilation. While a history is recorded
  each stage is a program of its own, so their sum is more than the time of a round without history,
  where all rounds are one program. A first round is slower than later ones, because its programs
  are new. Methods that decide between stages on the device have fewer stages (`Adaptive`: "forward
  and verify"), and those of filling have one, "round". The first record is the prefill's.

  `rows` has for each row a TreeRecord, or the PassRecords of the round, or None if the row had
  ended.
  """

  seconds: dict[str, float]
  rows: tuple[TreeRecord | tuple[PassRecord, ...] | None, ...]


def emitted_tokens_of(history: Sequence[RoundRecord], row: int) -> list[int]:
  """Returns the tokens that the trees of a row emitted, which are `Generation.tokens[row]`."""
  trees = [record.rows[row] for record in history]
  return [token for tree in trees if isinstance(tree, TreeRecord) for token in tree.emitted]


def to_json(history: Sequence[RoundRecord]) -> list[dict[str, Any]]:
  """Returns the history as lists, dicts and numbers alone."""
  return [dataclasses.asdict(record) for record in history]


def from_json(records: Sequence[Mapping[str, Any]]) -> list[RoundRecord]:
  """Returns the history that `to_json` wrote, also after it was stored in a file of JSON.

  Raises ValueError for anything else.
  """
  try:
    return [
      RoundRecord(dict(one["seconds"]), tuple(_row(row) for row in one["rows"])) for one in records
    ]
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"this is no history of rounds as `to_json` writes it: {error!r}") from None


def _row(row):
  if row is None:
    return None
  if isinstance(row, Mapping):
    return TreeRecord(**_tuples(row))
  return tuple(PassRecord(**_tuples(one)) for one in row)


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
  return {
    name: tuple(value) if isinstance(value, (list, tuple)) else value
    for name, value in fields.items()
  }
