"""One network trained in several ways: likelihoods of the same rows, a held-out middle, and texts.

The table that `experiments/diffusion/one_network.py` prints is made of these measurements.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.anysubset import Canvas, fill, lattice, log_likelihood, make_canvas
from mtjax.anysubset.orders import staggered_order
from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.diffusion.likelihood.estimators import LikelihoodEstimator, MonteCarlo
from mtjax.diffusion.likelihood.network import block_of, network_conditionals
from mtjax.evaluate.generative import TextQuality, judge_texts
from mtjax.evaluate.texts import named_documents
from mtjax.registry.denoising.methods import denoiser
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

EXACT, BOUND = "exact", "bound"
# Entries that pass through the network in training per token of the text, by objective. The two
# streams of an any-subset model have queries for half of a row (configs/train/one_network.py).
ENTRIES = dict(
  next_token=1.0, any_subset=1.5, masked_diffusion=1.0, block_diffusion=2.0, set_diffusion=2.0
)
NOTES = (
  "Equal compute means an equal number of entries that pass through the network in training; "
  "attention and the output layer are not counted. An objective with twice as many entries per "
  "token has seen half as much text.",
  "An exact value is that of the model's density of a row. A bound is at least as large as the "
  "exact value of the same model. The error is the standard error over rows.",
  "Rows were continued by each model's own way to sample at temperature 1; the perplexity of the "
  "judge may be compared only where entropies are near each other. Times are of one run.",
  "The five are far from done: they saw less than one pass over the text.",
)


@dataclasses.dataclass(frozen=True)
class RowLikelihood:
  """Nats of rows: exactly -log p, or a bound that is at least as large up to its error."""

  kind: str
  nats: Float[np.ndarray, " N"]  # of each row's targets

  def bits_per_token(self, targets: int) -> tuple[float, float]:
    """Returns the mean over rows, and its standard error: rows, and samples of a bound, vary."""
    bits = self.nats / math.log(2) / targets
    return float(bits.mean()), float(bits.std(ddof=1) / math.sqrt(len(bits)))


def rows_of(
  tokens: Sequence[int] | np.ndarray, *, length: int, count: int
) -> Int[np.ndarray, "N L"]:
  """Returns `count` rows of `length` tokens, spread evenly over a text.

  Raises ValueError for a text that has fewer.
  """
  whole = len(tokens) // length
  if whole < count:
    raise ValueError(f"the text has {whole} rows of {length} tokens, but {count} are needed")
  starts = np.arange(count) * whole // count * length
  return np.asarray(tokens, np.int32)[starts[:, None] + np.arange(length)]


def likelihood(
  model: TextModel,
  row: Int[np.ndarray, "N L"],
  *,
  begin: int,
  end: int,
  samples: int = 16,
  seed: int = 0,
) -> RowLikelihood:
  """Returns nats of the tokens begin..end of each row, given those before and, if it can, after.

  A causal model gives exactly -log p given the tokens before. An any-subset model gives it exactly
  given those after too, from left to right or, in Set Diffusion, in an order as in its training;
  its sink stands in place of a row's first token, as in training. A masked model gives the bound of
  continuous time, from `samples` maskings per row, given those after too unless it has blocks,
  which see no later block. Raises ValueError for a range that is empty or outside the row.
  """
  if not 1 <= begin < end <= row.shape[1]:
    raise ValueError(f"begin and end must rise from 1 to {row.shape[1]}, got {begin} and {end}")
  config = model.model.config
  if config.predicts == "masked":
    network = MaskedNetwork.of(model.model)
    bounds = [
      _bound(network, model, one, begin, end, MonteCarlo(samples, seed + number))
      for number, one in enumerate(row)
    ]
    return RowLikelihood(BOUND, np.array(bounds))
  if config.predicts == "any_subset":
    return RowLikelihood(EXACT, _joint(model, row, begin, end, seed))
  return RowLikelihood(EXACT, _causal(model, row, begin, end))


def continued(
  model: TextModel, prompts: Int[np.ndarray, "N P"], *, length: int, seed: int = 0
) -> tuple[list[list[int]], dict[str, float]]:
  """Returns `length` tokens sampled after each prompt, by the model's own way, and what they cost.

  A causal model samples token by token, an any-subset model drafts and verifies exactly (ASSD; in
  Set Diffusion in an order as in training), a masked model samples ancestrally in length / 2
  passes, a model of blocks decides what is above a threshold of 0.9, with the exact cache. The cost
  is `tokens_per_forward` and `milliseconds_per_token`, of all rows at once.
  """
  config, sampling = model.model.config, Sampling(temperature=1.0)
  count = len(prompts) * length
  if config.predicts == "any_subset":
    token = np.pad(prompts[:, 1:], ((0, 0), (0, length)))
    is_target = np.broadcast_to(np.arange(token.shape[1]) >= prompts.shape[1] - 1, token.shape)
    canvas = make_canvas(config, token, is_target)
    settings: dict[str, Any] = dict(sampling=sampling, rank=_order(model, canvas, seed), key=seed)
    filled = fill(model.model, model.params, canvas, **settings)
    tokens = filled.token[:, -length:].tolist()
    forwards, seconds = int(filled.forwards.sum()), filled.counters["seconds"]
  elif config.predicts == "masked":
    name = "block" if config.block_length else "mdlm"
    steps = length if config.block_length else length // 2
    method = denoiser(name, length=length, steps=steps)
    _, run = model.denoise(prompts.tolist(), method=method, sampling=sampling, key=seed)
    tokens, forwards, seconds = run.tokens, int(run.passes.sum()), run.counters["seconds"]
    count = sum(map(len, tokens))
  else:
    _, run = model.generate(prompts.tolist(), max_tokens=length, sampling=sampling, key=seed)
    tokens, seconds = run.tokens, run.counters["seconds"]
    count = forwards = sum(map(len, tokens))
  cost = dict(tokens_per_forward=count / forwards, milliseconds_per_token=1e3 * seconds / count)
  return tokens, cost


def _causal(
  model: TextModel, row: Int[np.ndarray, "N L"], begin: int, end: int
) -> Float[np.ndarray, " N"]:
  frontier = frontier_lib.causal(jnp.asarray(row))
  logits = model.model.forward(model.params, frontier).logits.astype(jnp.float32)
  log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)[:, :-1]
  nats = -np.take_along_axis(log_p, row[:, 1:, None], axis=2)[..., 0]
  return nats[:, begin - 1 : end - 1].sum(axis=1)


def _joint(
  model: TextModel, row: Int[np.ndarray, "N L"], begin: int, end: int, seed: int
) -> Float[np.ndarray, " N"]:
  place = np.arange(1, row.shape[1])
  is_target = np.broadcast_to((place >= begin) & (place < end), (len(row), len(place)))
  canvas = make_canvas(model.model.config, row[:, 1:], is_target)
  log_p = log_likelihood(model.model, model.params, canvas, _order(model, canvas, seed))
  return -log_p.astype(np.float64).sum(axis=1)


def _order(model: TextModel, canvas: Canvas, seed: int) -> Int[Array, "N L"]:
  if model.model.config.any_subset_rows == "set_diffusion":
    return staggered_order(canvas, seed)
  return lattice(canvas)


def _bound(
  network: MaskedNetwork,
  model: TextModel,
  row: Int[np.ndarray, " L"],
  begin: int,
  end: int,
  estimator: LikelihoodEstimator,
) -> float:
  # Later blocks are not seen: they need not be there.
  stop = end if network.block_length else len(row)
  given = begin if network.block_length else 1
  whole = network_conditionals(
    network, model.params, row[:stop], context=given, batch=16, length=len(row)
  )
  before, after = begin - given, stop - end

  def middle(masks: Bool[np.ndarray, "M T"]) -> Float[np.ndarray, "M T"]:
    log_p = whole(np.pad(masks, ((0, 0), (before, after))))
    return log_p[:, before : before + masks.shape[1]]

  return -estimator(middle, end - begin, block=block_of(network, end, begin)).nats


def measure(
  objective: str,
  model: TextModel,
  source: str,
  judge: TextModel,
  *,
  count: int,
  length: int,
  step: int,
  batch: int,
) -> dict[str, Any]:
  """Returns a row of the table: the figures of a model after `step` steps of `batch` rows."""
  (documents,) = named_documents([f"text={source}"], model.tokenizer).values()
  row = rows_of(np.concatenate([tokens for tokens, _ in documents]), length=length, count=count)
  # Whole blocks, so that those of a model of blocks are all missing.
  middle = dict(begin=3 * length // 8, end=5 * length // 8)
  whole, part = likelihood(model, row, begin=1, end=length), likelihood(model, row, **middle)
  prompts, half = row[:, : length // 2], length // 2
  tokens, cost = continued(model, prompts, length=half)
  texts = [model.tokenizer.decode(one) for one in tokens]
  begun = [model.tokenizer.decode(one) for one in prompts.tolist()]
  quality = TextQuality.of(judge_texts(judge, texts, begun))
  seen = step * batch * length
  bits, error = whole.bits_per_token(length - 1)
  middle_bits, middle_error = part.bits_per_token(middle["end"] - middle["begin"])
  return dict(
    steps=step,
    entries=ENTRIES[objective] * seen,
    text_tokens=seen,
    kind=whole.kind,
    bits=bits,
    error=error,
    middle=middle_bits,
    middle_error=middle_error,
    both_sides=objective not in ("next_token", "block_diffusion"),
    **cost,
    perplexity=quality.perplexity,
    entropy=quality.entropy,
  )
