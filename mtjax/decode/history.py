"""The history of a decode: what a round of trees did, from arrays of the device to records."""

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.rounds import run
from mtjax.rounds.history import RoundRecord, TreeRecord
from mtjax.rounds.state import DecodeState
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.types import TokenTree, Verdict


@struct.dataclass
class TreesObserved:
  """A round's trees and verdicts, without anything as large as a vocabulary."""

  token: Int[Array, "B N"]
  parent: Int[Array, "B N"]
  valid: Bool[Array, "B N"]
  draft_prob: Float[Array, "B N"] | None  # of each node under its parent; None: by a rule
  path: Int[Array, "B P"]
  count: Int[Array, " B"]  # of the verdict: nodes of the path, the root among them
  bonus: Int[Array, " B"]
  num_emitted: Int[Array, " B"]  # 0: the row had ended before


def observe_tree(
  tree: TokenTree,
  q: Float[Array, "B N V"] | None,
  verdict: Verdict,
  num_emitted: Int[Array, " B"],
) -> TreesObserved:
  """Returns what is kept of a tree as it was verified, of `Draft.q` and of its verdict."""
  draft_prob = None
  if q is not None:
    row = jnp.arange(tree.token.shape[0])[:, None]
    draft_prob = q[row, jnp.maximum(tree.parent, 0), tree.token]
  return TreesObserved(
    tree.token, tree.parent, tree.valid, draft_prob, verdict.path, verdict.count, verdict.token,
    num_emitted,
  )  # fmt: skip


def observe_token(
  last: Int[Array, " B"], active: Bool[Array, " B"], token: Int[Array, " B"]
) -> TreesObserved:
  """Returns a round without drafts: `token` follows `last` in the rows that were active."""
  root, one = last[:, None], jnp.ones_like(last)
  return TreesObserved(
    root, -jnp.ones_like(root), jnp.ones_like(root, bool), None, jnp.zeros_like(root), one, token,
    jnp.where(active, one, 0),
  )  # fmt: skip


def record(
  program: run.Program[DecodeState],
  inputs: PyTree,
  last_of_prompts: Sequence[int],
  history: list[RoundRecord],
  *,
  every: int = 1,
) -> Iterator[tuple[DecodeState, Stopwatch]]:
  """Yields what `mtjax.rounds.run.stream` does, and appends a record of each round to `history`.

  `last_of_prompts`: the last token of each prompt, the root of what the prefill emits.
  """
  found = None
  for number, found in enumerate(run.record(program, inputs)):
    seen = found.observed
    if seen is None:
      token = np.asarray(found.state.tokens)[:, 0]
      last = np.asarray(last_of_prompts)
      seen = observe_token(last, np.ones(len(last), bool), token)
    history.append(RoundRecord(found.seconds, tree_records(seen)))
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
  rows: list[TreeRecord | None] = []
  for row in range(len(token)):
    if num_emitted[row] == 0:
      rows.append(None)
      continue
    nodes = np.flatnonzero(valid[row])
    new = np.cumsum(valid[row]) - 1  # a node's number among those that are kept
    inner = nodes[1:]
    probs = [None] * len(inner) if prob is None else prob[row, inner].tolist()
    # A text may end with an accepted draft: what stands behind it, and the bonus, are nobody's.
    kept = path[row, : min(int(num_emitted[row]) + 1, int(count[row]))]
    rows.append(
      TreeRecord(
        tokens=tuple(token[row, nodes].tolist()),
        parents=(-1, *new[parent[row, inner]].tolist()),
        draft_probs=(None, *probs),
        path=tuple(new[kept].tolist()),
        bonus=int(bonus[row]) if num_emitted[row] == count[row] else None,
      )
    )
  return tuple(rows)
