"""What happened in every round, for whoever asks: trees and verdicts, or decided entries, and time.

Plain Python, so that it survives JSON as it is: `to_json` and `from_json` are each other's inverse.
A history is a list of `RoundRecord`, first to last.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class TreeRecord:
  """One row's tree in one round, and what the verifier said of it.

  Nodes are those that could be accepted, parents before children; node 0 is the root, the token
  emitted before the round. Without a draft the tree is the root alone.
  """

  tokens: tuple[int, ...]
  parents: tuple[int, ...]  # -1: the root
  # q(token | path to its parent), where the drafter samples: q is what a node's first child is
  # sampled from, at the request's temperature. None: the root, and drafts chosen by a rule.
  draft_probs: tuple[float | None, ...]
  path: tuple[int, ...]  # the root, then the accepted nodes that were emitted
  bonus: int | None  # the target's own token after them; None: the text ended with a draft

  @property
  def emitted(self) -> tuple[int, ...]:
    """The tokens that the round added to the row."""
    own = () if self.bonus is None else (self.bonus,)
    return tuple(self.tokens[node] for node in self.path[1:]) + own


@dataclasses.dataclass(frozen=True)
class PassRecord:
  """What one forward pass of filling decided in one row."""

  number: int  # of the row's passes, from 1
  entries: tuple[int, ...]  # where they stand, in the order of the fill
  tokens: tuple[int, ...]
  # log p(token) as the pass had it, at the request's temperature: of what it was sampled from, or
  # accepted against.
  log_probs: tuple[float, ...]
  drafted: tuple[bool, ...]  # which were accepted drafts


@dataclasses.dataclass(frozen=True)
class RoundRecord:
  """One round of the batch.

  `seconds`, by stage: each is a program of its own while a history is recorded, and none of them
  is compiled in its time. So their sum is more than the round takes otherwise, where all rounds are
  one program. Methods that decide between stages on the device have fewer of them (`Adaptive`:
  "forward and verify"), and those of filling have one, "round". The first record is the prefill's.

  `rows`: a TreeRecord, or the PassRecords of the round; None for a row that had ended.
  """

  seconds: dict[str, float]
  rows: tuple[TreeRecord | tuple[PassRecord, ...] | None, ...]


def emitted_tokens_of(history: Sequence[RoundRecord], row: int) -> list[int]:
  """Returns the tokens of a row as its trees emitted them: `Generation.tokens[row]`."""
  trees = [record.rows[row] for record in history]
  return [token for tree in trees if isinstance(tree, TreeRecord) for token in tree.emitted]


def to_json(history: Sequence[RoundRecord]) -> list[dict[str, Any]]:
  """Returns lists, dicts and numbers alone."""
  return [dataclasses.asdict(record) for record in history]


def from_json(records: Sequence[Mapping[str, Any]]) -> list[RoundRecord]:
  """Returns the history that `to_json` wrote, also after a file of JSON in between.

  Raises ValueError for what is no history.
  """
  try:
    return [
      RoundRecord(dict(one["seconds"]), tuple(_row(row) for row in one["rows"])) for one in records
    ]
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"this is no history of rounds: {error!r}") from None


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
