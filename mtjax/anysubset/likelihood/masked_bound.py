"""The bound of masked diffusion, from the conditionals of an any-subset model.

Masked diffusion gives log p(targets | context) >= -NELBO, and the NELBO is the same for every
schedule of noise (MDLM 2406.07524, MD4 2406.04329). Let a_t be the probability that a token is not
masked yet at time t. Then

  -NELBO = int -a'_t / (1 - a_t) E[sum of log p(x_i | clean) over masked i] dt
         = sum over subsets M of the A targets of w(|M|) sum_{i in M} log p(x_i | all but M),
  w(k) = int -a'_t (1 - a_t)^(k - 1) a_t^(A - k) dt = 1 / (k C(A, k)):

the integral is a beta function, a_t its variable. It is also the mean over all A! orders of
log p(targets | context) in that order (order-agnostic autoregression, 2110.02037), since (M, i) is
what a random order has as (the entries that are still to come, the first of them): the ELBO
identity. Both hold for conditionals that depend on the clean tokens only. In a two-stream
transformer a decided token has seen fewer entries than a context token of the same value, so the
mean over orders of `log_likelihood` is near this bound, but not equal to it.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtjax.anysubset.canvas import Canvas, check_canvas, two_stream
from mtjax.anysubset.network import Network, without_mask
from mtjax.anysubset.single_stream import check_two_streams
from mtjax.models import Params
from mtjax.sampling.logits import Seed, seed_key

MAX_TARGETS = 12  # limit of the exact bound: 4095 passes


def weight_of_subset(targets: int, masked: int) -> float:
  """Returns w(masked) = 1 / (masked C(targets, masked)), the weight of each subset of that size."""
  if not 1 <= masked <= targets:
    raise ValueError(f"masked must be from 1 to the {targets} targets, got {masked}")
  return 1 / (masked * math.comb(targets, masked))


def log_conditionals(model: Network, params: Params, canvas: Canvas) -> Float[Array, "B L"]:
  """Returns log p of every target given the context alone, in nats; 0 elsewhere. It is one pass.

  This is what a masked diffusion model predicts of its masked tokens: no target sees another.
  """
  query = jnp.broadcast_to(jnp.arange(canvas.size), canvas.token.shape)
  frontier = two_stream(model.config, canvas, canvas.is_target.astype(jnp.int32), query)
  logits = without_mask(model).forward(params, frontier, rows=query + canvas.size).logits
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  token = jnp.clip(canvas.token, 0, logits.shape[-1] - 1)
  chosen = jnp.take_along_axis(logits, token[:, :, None], axis=2)[:, :, 0]
  return jnp.where(canvas.is_target, chosen - jax.nn.logsumexp(logits, axis=2), 0)


def exact_masked_bound(
  model: Network, params: Params, canvas: Canvas, *, batch: int = 64
) -> Float[np.ndarray, " B"]:
  """Returns -NELBO of every row, in nats, from all subsets of its target entries.

  The canvas's tokens are the text. Raises ValueError, before compilation, for more than 12 target
  entries (`sampled_masked_bound` has no such limit), a row without one, tokens outside the
  vocabulary, and entries that are both context and target.
  """
  is_target = _checked(model, canvas)
  if is_target.sum(axis=1).max() > MAX_TARGETS:
    raise ValueError(
      f"{int(is_target.sum(axis=1).max())} target entries have too many subsets "
      f"(the limit is {MAX_TARGETS}); use sampled_masked_bound"
    )
  rows, masks, weights = [], [], []
  for row in range(len(is_target)):
    places = np.flatnonzero(is_target[row])
    for bits in itertools.product([False, True], repeat=len(places)):
      if any(bits):
        mask = np.zeros(canvas.size, bool)
        mask[places] = bits
        rows.append(row)
        masks.append(mask)
        weights.append(weight_of_subset(len(places), sum(bits)))
  sums = _sums(model, params, canvas, np.array(rows), np.array(masks), batch)
  return np.bincount(rows, weights=sums * weights, minlength=len(is_target))


def sampled_masked_bound(
  model: Network,
  params: Params,
  canvas: Canvas,
  *,
  samples: int,
  key: Seed = 0,
  batch: int = 64,
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
  """Estimates -NELBO of every row from `samples` maskings without bias; also its standard error.

  The number of masked entries is uniform on 1..A and stratified over the samples, and the entries
  are uniform given it; a masking counts A / k times the sum of its k conditionals (LLaDA
  2502.09992, eq. 6). The error is that of independent samples, which strata make rather too large;
  it is NaN for one sample.
  Raises ValueError for fewer than one sample, and as `exact_masked_bound` does.
  """
  is_target = _checked(model, canvas)
  if samples < 1:
    raise ValueError(f"samples must be at least 1, got {samples}")
  masks = np.asarray(_maskings(seed_key(key), jnp.asarray(is_target), samples))  # [B, S, L]
  rows = np.repeat(np.arange(len(is_target)), samples)
  sums = _sums(model, params, canvas, rows, masks.reshape(-1, canvas.size), batch)
  each = sums.reshape(masks.shape[:2]) * is_target.sum(axis=1)[:, None] / masks.sum(axis=2)
  error = each.std(axis=1, ddof=1) / np.sqrt(samples) if samples > 1 else np.nan * each[:, 0]
  return each.mean(axis=1), error


@functools.partial(jax.jit, static_argnames="samples")
def _maskings(key, is_target, samples) -> Bool[Array, "B S L"]:
  batch, size = is_target.shape
  lot_key, number_key, order_key = jax.random.split(key, 3)
  total = is_target.sum(axis=1)[:, None]
  part = jax.vmap(lambda key: jax.random.permutation(key, samples))(
    jax.random.split(order_key, batch)
  )
  # Uniform on (0, 1] in strata, so that k = ceil(A u) is uniform on 1..A.
  inside = (part + 1 - jax.random.uniform(number_key, (batch, samples))) / samples
  number = jnp.clip(jnp.ceil(total * inside), 1, total)
  lot = jax.random.uniform(lot_key, (batch, samples, size))
  lot = jnp.where(is_target[:, None], lot, jnp.inf)
  place = jnp.argsort(jnp.argsort(lot, axis=2), axis=2)
  return is_target[:, None] & (place < number[:, :, None])


def _checked(model, canvas) -> Bool[np.ndarray, "B L"]:
  check_two_streams(model.config, "the bound of masked diffusion")
  check_canvas(model.config, canvas)
  token, is_target = np.asarray(canvas.token), np.asarray(canvas.is_target)
  known, vocab = token[is_target], model.config.vocab_size
  if not is_target.any(axis=1).all():
    raise ValueError("a row has no target entry, so that there is nothing to bound")
  if known.min() < 0 or known.max() >= vocab:
    raise ValueError(f"target tokens must be within 0..{vocab - 1}")
  return is_target


def _sums(model, params, canvas, rows, masks, batch) -> Float[np.ndarray, " N"]:
  """Returns the summed conditionals of masked entries: row rows[n] of the canvas under masks[n]."""
  out = []
  batch = min(batch, len(rows))
  for first in range(0, len(rows), batch):
    # The last batch repeats its first rows to be full: all batches share one compilation.
    index = np.resize(np.arange(first, min(first + batch, len(rows))), batch)
    part = jax.tree.map(lambda x, index=index: x[rows[index]], canvas)
    part = part.replace(is_target=jnp.asarray(masks[index]))
    part = part.replace(
      is_context=part.is_context | (canvas.is_target[rows[index]] & ~part.is_target)
    )
    sums = np.asarray(_sum(model, params, part), np.float64)
    out.append(sums[: len(rows) - first])
  return np.concatenate(out)


@functools.partial(jax.jit, static_argnames="model")
def _sum(model, params, canvas):
  return jnp.sum(log_conditionals(model, params, canvas), axis=1)
