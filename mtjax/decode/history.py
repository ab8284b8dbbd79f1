"""The history of a decode: what a round of trees did, from arrays of the device to records."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.rounds import run
from mtjax.rounds.history import RoundRecord, TreeRecord
from mtjax.rounds.state import DecodeState
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.sampling.logits import History, Rules, reported
from mtjax.types import TokenTree, Verdict


@struct.dataclass
class TreesObserved:
  """A round's trees and verdicts, without anything as large as a vocabulary."""

  token: Int[Array, "B N"]
  parent: Int[Array, "B N"]
  valid: Bool[Array, "B N"]
  draft_prob: Float[Array, "B N"] | None  # of each node under its parent; None: by a rule
  target_prob: Float[Array, "B N"]  # the same of the target; the root's means nothing
  bonus_prob: Float[Array, " B"]  # the target's, of `bonus` after the last node of the path
  path: Int[Array, "B P"]
  count: Int[Array, " B"]  # of the verdict: nodes of the path, the root among them
  bonus: Int[Array, " B"]
  num_emitted: Int[Array, " B"]  # 0: the row had ended before


def observe_tree(
  tree: TokenTree,
  q: Float[Array, "B N V"] | None,
  p: Float[Array, "B N V"],
  verdict: Verdict,
  num_emitted: Int[Array, " B"],
) -> TreesObserved:
  """Returns what is kept of a tree as it was verified, of `Draft.q` and of its verdict.

  `p`: the target's distribution after each node, as `target_probs` returns it.
  """
  row = jnp.arange(tree.token.shape[0])
  edge = (row[:, None], jnp.maximum(tree.parent, 0), tree.token)
  last = jnp.take_along_axis(verdict.path, verdict.count[:, None] - 1, axis=1)[:, 0]
  return TreesObserved(
    token=tree.token,
    parent=tree.parent,
    valid=tree.valid,
    draft_prob=None if q is None else q[edge],
    target_prob=p[edge],
    bonus_prob=p[row, last, verdict.token],
    path=verdict.path,
    count=verdict.count,
    bonus=verdict.token,
    num_emitted=num_emitted,
  )


def observe_token(
  last: Int[Array, " B"],
  active: Bool[Array, " B"],
  token: Int[Array, " B"],
  p: Float[Array, "B 1 V"],
) -> TreesObserved:
  """Returns a round without drafts: `token` follows `last` in the rows that were active.

  `p`: the target's distribution after `last`, as `target_probs` returns it.
  """
  root, one = last[:, None], jnp.ones_like(last)
  return TreesObserved(
    token=root,
    parent=-jnp.ones_like(root),
    valid=jnp.ones_like(root, bool),
    draft_prob=None,
    target_prob=jnp.ones_like(root, p.dtype),
    bonus_prob=jnp.take_along_axis(p[:, 0], token[:, None], axis=1)[:, 0],
    path=jnp.zeros_like(root),
    count=one,
    bonus=token,
    num_emitted=jnp.where(active, one, 0),
  )


def target_probs(
  logits: Float[Array, "B N V"], rules: Rules, history: History | None
) -> Float[Array, "B N V"]:
  """Returns the target's distribution as a history has it (`mtjax.sampling.logits.reported`)."""
  return jax.nn.softmax(reported(logits, rules, history), axis=-1)


def record(
  program: run.Program[DecodeState],
  inputs: PyTree,
  keep: Callable[[RoundRecord], None],
  *,
  batch: int | None = None,
  every: int = 1,
) -> Iterator[tuple[DecodeState, Stopwatch]]:
  """Yields what `mtjax.rounds.run.stream` does, and hands a record of each round to `keep`.

  `batch`: the number of rows that hold a text, which are the first ones; None: all of them do.
  """
  found = None
  for number, found in enumerate(run.record(program, inputs)):
    keep(RoundRecord(found.seconds, tree_records(found.observed)[:batch]))
    if number % every == 0:
      yield found.state, found.clock
  if found is not None and number % every:
    yield found.state, found.clock


def tree_records(seen: TreesObserved) -> tuple[TreeRecord | None, ...]:
  """Returns one record per row, of the nodes that could be accepted; None for ended rows."""
  token, parent, valid, path = (
    np.asarray(x) for x in (seen.token, seen.parent, seen.valid, seen.path)
  )
  count, bonus, num_emitted = (np.asarray(x) for x in (seen.count, seen.bonus, seen.num_emitted))
  prob = None if seen.draft_prob is None else np.asarray(seen.draft_prob, float)
  target_prob, bonus_prob = (np.asarray(x, float) for x in (seen.target_prob, seen.bonus_prob))
  rows: list[TreeRecord | None] = []
  for row in range(len(token)):
    if num_emitted[row] == 0:
      rows.append(None)
      continue
    nodes = np.flatnonzero(valid[row])
    new = np.cumsum(valid[row]) - 1  # a node's number among those that are kept
    inner = nodes[1:]
    # Of a method with several drafters, not a number: this one drafts by a rule.
    probs = (
      [None] * len(inner)
      if prob is None
      else [None if np.isnan(one) else one for one in prob[row, inner].tolist()]
    )
    # A text may end with an accepted draft: what stands behind it, and the bonus, are nobody's.
    kept = path[row, : min(int(num_emitted[row]) + 1, int(count[row]))]
    has_bonus = num_emitted[row] == count[row]
    rows.append(
      TreeRecord(
        tokens=tuple(token[row, nodes].tolist()),
        parents=(-1, *new[parent[row, inner]].tolist()),
        draft_probs=(None, *probs),
        path=tuple(new[kept].tolist()),
        bonus=int(bonus[row]) if has_bonus else None,
        target_probs=(None, *target_prob[row, inner].tolist()),
        bonus_prob=float(bonus_prob[row]) if has_bonus else None,
      )
    )
  return tuple(rows)
