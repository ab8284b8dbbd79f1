"""The acceptance profile of a drafter, measured on calibration text."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax import hosts
from mtjax.decode.speculative import Speculative
from mtjax.draft import BestFirst, Drafter, ModelChain, ModelTree
from mtjax.models import Model, Params
from mtjax.planning.identity import identity
from mtjax.planning.texts import BUNDLED_TEXTS, name_of
from mtjax.rounds.history import RoundRecord
from mtjax.rounds.placement import check_unpacked
from mtjax.rounds.state import put_batch
from mtjax.sampling.canonical import canonical_sampling, sampling_name
from mtjax.sampling.logits import Sampling
from mtjax.sharding import on_mesh, pad_rows, padded_rows, put_known
from mtjax.text import Prompt, TextModel
from mtjax.trees import Topology
from mtjax.tuning.profiles import AcceptanceCounts, AcceptanceProfile, count_history, count_ranks
from mtjax.verify import Verifier

# Drafters whose candidates after a text are the most probable tokens of one causal model.
_REPLAYED = (ModelChain, ModelTree, BestFirst)


def measure_acceptance(
  text: TextModel,
  drafter: Drafter,
  drafter_params: PyTree = None,
  *,
  name: str,
  texts: Mapping[str, Sequence[Prompt]] = BUNDLED_TEXTS,
  shape: Topology | None = None,
  height: int | None = None,
  breadth: int = 8,
  max_tokens: int = 64,
  sampling: Sampling | None = None,
  verifier: str | Verifier = "sample_match",
  key: int = 0,
  replay: bool | None = None,
  progress: Callable[[str], None] = lambda _: None,
  of: Mapping[str, str] | None = None,
) -> AcceptanceProfile:
  """Returns how often a drafter's candidates are accepted, by domain, depth and rank.

  texts: prompts by domain, as texts or token ids, all of which are continued by up to `max_tokens`
  tokens in one batch.

  There are two ways. Where a greedy request is drafted by one causal model (draft chains, fixed and
  best-first trees), the target writes the texts alone and the draft model then reads each of them
  once, in a masked forward pass: that says for every place at which rank the draft model has the
  text's next token, so `height` depths (None: the drafter's) and `breadth` ranks are known from
  every place. Otherwise decoding with this drafter is recorded (`count_history`).

  shape: counts the rounds of this tree only. It is needed for drafters that do not always find a
  draft (prompt lookup: `chain(length)`), and of a replay it makes the counts those of decoding with
  that tree, round by round. None: every place is counted, or the drafts that were there.
  replay: None, where it is possible. of: replaces `identity`, to which "sampling", "verifier",
  "texts", "max_tokens", "shape" and "replay" are added. Raises ValueError for a replay of what
  cannot be replayed, for `max_tokens` that are no more than the depths to count, and as `generate`
  does.
  """
  can = isinstance(drafter, _REPLAYED) and canonical_sampling(sampling) is None
  if replay and not can:
    raise ValueError(
      f"{name!r} cannot be replayed: only greedy requests with drafts of one causal model can "
      f"({', '.join(one.__name__ for one in _REPLAYED)}). Leave replay out"
    )
  method = Speculative(drafter, verifier)
  # Token ids may be numpy's, which no JSON takes.
  texts = {
    domain: tuple(prompt if isinstance(prompt, str) else [*map(int, prompt)] for prompt in own)
    for domain, own in texts.items()
  }
  prompts = [
    (domain, text.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
    for domain in texts
    for prompt in texts[domain]
  ]
  if not prompts:
    raise ValueError("there is no text to calibrate with: give at least one domain with a prompt")
  domains, ids = [domain for domain, _ in prompts], [tokens for _, tokens in prompts]
  settings: dict[str, Any] = dict(max_tokens=max_tokens, sampling=sampling, key=key)
  if can and replay is not False:
    high = height or (shape or drafter).height
    if shape is None and max_tokens <= high:
      raise ValueError(
        f"texts of {max_tokens} tokens are too short for {high} depths: write at least {high + 1}"
      )
    progress(f"{name}: the target writes {len(ids)} texts")
    written = text.generate(ids, eos=(), **settings)[1].tokens
    progress(f"{name}: the draft model reads them")
    ranks = _ranks(drafter.model, drafter_params, ids, written, text.mesh)
    rows = [_replayed(row, shape, high, breadth) for row in ranks]
  else:
    progress(f"{name}: decoding {len(ids)} texts")
    recorded: dict[str, Any] = dict(method=method, method_params=drafter_params, history=True)
    run = text.generate(ids, eos=(), **settings, **recorded)[1]
    # The first record is that of the prefill.
    rows = [_recorded(run.history[1:], row, shape) for row in range(len(ids))]
  counts = {
    domain: functools.reduce(
      AcceptanceCounts.__add__,
      [row for row, its in zip(rows, domains, strict=True) if its == domain],
    )
    for domain in dict.fromkeys(domains)
  }
  request = dict(
    sampling=sampling_name(sampling),
    verifier=str(verifier),
    texts=name_of(texts),
    max_tokens=str(max_tokens),
    shape="any" if shape is None else f"parents {shape.parent}, ranks {shape.rank}",
    replay=str(can and replay is not False),
  )
  return AcceptanceProfile({**(of or identity(text, name, drafter_params)), **request}, counts)


def replayed_rounds(
  rank: Int[np.ndarray, " L"], shape: Topology, breadth: int | None = None
) -> AcceptanceCounts:
  """Returns the counts of greedy decoding of one text with trees of a shape, from its ranks.

  rank[i]: that of the text's token i among the drafter's candidates after the tokens before it.
  Token 0 is that of the prefill. A round drafts after the last token that was emitted; it emits the
  tokens along the tree as far as their ranks are in it, and one more.
  """
  height, breadth = max(shape.height, 1), breadth or max(shape.rank) + 1
  below = [{} for _ in shape.parent]
  for node, parent in enumerate(shape.parent[1:], 1):
    below[parent][shape.rank[node]] = node
  out = AcceptanceCounts.none(height, breadth)
  place, rounds = 1, 0
  while place < len(rank):
    node, depth, rounds = 0, 0, rounds + 1
    # Behind the last token of the text nothing is judged.
    while place < len(rank):
      out.tried[depth, list(below[node])] += 1
      found = below[node].get(int(rank[place]))
      place += 1
      if found is None:
        break
      out.accepted[depth, shape.rank[found]] += 1
      node, depth = found, depth + 1
      if not below[node]:
        place += 1  # the token after a whole path
        break
  return AcceptanceCounts(out.tried, out.accepted, rounds)


def _replayed(
  rank: Int[np.ndarray, " L"], shape: Topology | None, height: int, breadth: int
) -> AcceptanceCounts:
  if shape is not None:
    return replayed_rounds(rank, shape)
  # Places near the end, which have less than `height` tokens behind them, are left out.
  places = len(rank) - height
  return count_ranks(np.stack([rank[d : d + places] for d in range(1, height + 1)], 1), breadth)


def _recorded(history: Sequence[RoundRecord], row: int, shape: Topology | None) -> AcceptanceCounts:
  alone = [dataclasses.replace(record, rows=(record.rows[row],)) for record in history]
  if all(record.rows[0] is None for record in alone):  # the prefill ended the text
    return AcceptanceCounts.none(1, 1)
  return count_history(alone, shape=shape)


def _ranks(
  model: Model,
  params: Params,
  prompts: Sequence[Sequence[int]],
  written: Sequence[Sequence[int]],
  mesh: Mesh | None = None,
) -> list[Int[np.ndarray, " L"]]:
  """Returns for each token of each text its rank by the draft model, after all before it."""
  texts = [[*prompt, *new] for prompt, new in zip(prompts, written, strict=True)]
  token = np.zeros((len(texts), max(map(len, texts))), np.int32)
  for row, one in enumerate(texts):
    token[row, : len(one)] = one
  length = jnp.array([len(one) for one in texts], jnp.int32)
  rows = padded_rows(len(texts), mesh)
  batch = pad_rows((jnp.asarray(token), length), rows)
  if mesh is not None:
    check_unpacked("the draft model", params, mesh)
    params, batch = put_known(params, mesh), put_batch(batch, mesh, rows)
  with on_mesh(mesh):
    rank = hosts.whole(_ranked(model, params, *batch, at_once=padded_rows(1, mesh)))
  return [
    rank[row, len(prompt) - 1 : len(prompt) + len(new) - 1]
    for row, (prompt, new) in enumerate(zip(prompts, written, strict=True))
  ]


@functools.partial(jax.jit, static_argnames=("model", "at_once"))
def _ranked(
  model: Model, params: Params, token: Int[Array, "B L"], length: Int[Array, " B"], *, at_once: int
) -> Int[Array, "B L-1"]:
  """Returns the rank of the token after each, -1: it is never drafted.

  Of equal logits the smaller token comes first, as in top_k. `at_once` rows are in one pass, whose
  logits take most of the memory; it divides B.
  """

  def rows(token, length):
    frontier = frontier_lib.causal(token, length=length)
    logits = model.forward(params, frontier).logits[:, :-1]
    following = token[:, 1:, None]
    own = jnp.take_along_axis(logits, following, axis=2)
    ids = jnp.arange(logits.shape[2])
    rank = jnp.sum((logits > own) | ((logits == own) & (ids < following)), axis=2)
    return jnp.where(own[:, :, 0] > -jnp.inf, rank, -1)

  # Row i of each part of the batch is in pass i: every device of the data axis reads its own part.
  def parts(x):
    return jnp.moveaxis(x.reshape(at_once, -1, *x.shape[1:]), 1, 0)

  rank = jax.lax.map(lambda pair: rows(*pair), (parts(token), parts(length)))
  return jnp.moveaxis(rank, 0, 1).reshape(token.shape[0], -1)
