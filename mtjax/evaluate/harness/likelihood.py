"""Log-likelihoods of the targets of pairs, and whether greedy decoding writes them."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtjax.evaluate.harness.pairs import TokenPair
from mtjax.models import Model, Params, check_causal
from mtjax.rounds.prefill import fold_prompt
from mtjax.rounds.size_buckets import bucket
from mtjax.sampling.categorical import argmax


class PairScore(NamedTuple):
  """log p of a pair's targets in nats, and whether each of them is the argmax at its place."""

  log_likelihood: float
  is_greedy: bool


def pair_scores(
  model: Model,
  params: Params,
  pairs: Sequence[TokenPair],
  *,
  max_length: int,
  batch: int = 8,
  each: Callable[[int, PairScore], None] = lambda index, score: None,
) -> list[PairScore]:
  """Returns the score of each pair, in the order of `pairs`.

  A pair of more than `max_length` inputs loses the first of them. The longest pairs are read first,
  and rows of similar length share a batch; logits are computed for the targets alone, and lengths
  are rounded up to the sizes of `mtjax.rounds.size_buckets`: few programs are compiled. `each` is
  called with a pair's index and score as soon as it is known.

  Raises ValueError, before any pass, for an any-subset model, a `max_length` beyond the model's
  positions, a pair with more targets than `max_length`, and for token ids outside the vocabulary.
  """
  _check(model, pairs, max_length, batch)
  rows = [pair.row(max_length) for pair in pairs]
  order = sorted(range(len(rows)), key=lambda at: (-len(rows[at][0]), -len(pairs[at].target)))
  out: dict[int, PairScore] = {}
  for first in range(0, len(order), batch):
    part = order[first : first + batch]
    size = bucket(len(rows[part[0]][0]), maximum=max_length)
    count = bucket(max(len(pairs[at].target) for at in part), maximum=size)
    # A batch that is not full has rows of one token without targets: all share one program.
    inputs, targets = np.zeros((2, batch, size), np.int32)
    length, scored = np.ones(batch, np.int32), np.zeros(batch, np.int32)
    for row, at in enumerate(part):
      length[row], scored[row] = len(rows[at][0]), len(pairs[at].target)
      inputs[row, : length[row]], targets[row, : length[row]] = rows[at]
    nats, greedy = jax.device_get(_scores(model, params, inputs, targets, length, scored, count))
    for row, at in enumerate(part):
      out[at] = PairScore(-float(nats[row]), bool(greedy[row]))
      each(at, out[at])
  return [out[at] for at in range(len(rows))]


def _check(model: Model, pairs: Sequence[TokenPair], max_length: int, batch: int) -> None:
  check_causal(model, "the model")
  positions, vocab = model.config.max_position, model.config.vocab_size
  if not 1 <= max_length <= positions:
    raise ValueError(
      f"max_length must be from 1 to the model's {positions} positions, got {max_length}"
    )
  if batch < 1:
    raise ValueError(f"batch must be at least 1, got {batch}")
  for index, pair in enumerate(pairs):
    if len(pair.target) > max_length:
      raise ValueError(
        f"pair {index} has {len(pair.target)} tokens to score, more than max_length {max_length}"
      )
    tokens = pair.context + pair.target
    if min(tokens) < 0 or max(tokens) >= vocab:
      raise ValueError(f"pair {index} has token ids outside 0..{vocab - 1}")


@functools.partial(jax.jit, static_argnames=("model", "count"))
def _scores(
  model: Model,
  params: Params,
  inputs: Int[Array, "B T"],
  targets: Int[Array, "B T"],
  length: Int[Array, " B"],
  scored: Int[Array, " B"],
  count: int,
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
  """Returns -log p of the last `scored` targets of each row, and if all of them are greedy.

  `count` is at least every number of `scored`. A chunk has min(count, its size) entries with
  logits: a row's targets in it are consecutive, and from the first of them, or as near to it as the
  chunk's end allows, so many entries hold them all.
  """
  batch, size = inputs.shape
  begins = length - scored

  def rows(begin, chunk):
    wide = min(count, chunk)
    return jnp.clip(begins - begin, 0, chunk - wide)[:, None] + jnp.arange(wide)

  def add(value, begin, chunk, logits):
    nats, greedy = value
    place = begin + rows(begin, chunk)
    inside = (place >= begins[:, None]) & (place < length[:, None])
    target = jnp.take_along_axis(targets, jnp.minimum(place, size - 1), axis=1)
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    here = jnp.where(inside, jax.nn.logsumexp(logits, axis=-1) - chosen, 0.0)
    return nats + here.sum(axis=1), greedy & jnp.all((argmax(logits) == target) | ~inside, axis=1)

  initial = jnp.zeros(batch, jnp.float32), jnp.ones(batch, bool)
  return fold_prompt(model, params, inputs, length, size, rows, add, initial)[1]
