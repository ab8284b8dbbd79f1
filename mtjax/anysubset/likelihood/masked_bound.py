"""The bound of masked diffusion, from the conditionals of an any-subset model.

Masked diffusion gives log p(asked | given) >= -NELBO, and the NELBO is the same for every schedule
of noise (MDLM 2406.07524, MD4 2406.04329): where a_t is the chance that a token is still clean,

  -NELBO = int -a'_t / (1 - a_t) E[sum of log p(x_i | clean) over masked i] dt
         = sum over subsets M of the A asked entries of w(|M|) sum_{i in M} log p(x_i | all but M),
  w(k) = int -a'_t (1 - a_t)^(k - 1) a_t^(A - k) dt = 1 / (k C(A, k)):

the integral is a beta function, a_t its variable. It is also the mean over all A! orders of
log p(asked | given) in that order (order-agnostic autoregression, 2110.02037), since M, i is what a
random order has as "what comes from here on, the first of it": the ELBO identity. Both hold for
conditionals that depend on the clean tokens only. In a two-stream transformer a decided token has
seen fewer entries than a given one of the same value, so the mean over orders of `log_likelihood`
is near this bound, and is not it.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtjax.anysubset.canvas import Canvas, check_canvas, two_stream
from mtjax.anysubset.network import Network
from mtjax.anysubset.single_stream import check_two_streams
from mtjax.models import Params
from mtjax.sampling.logits import Seed, seed_key

MAX_TARGETS = 12  # of the exact bound: 4095 passes


def weight_of_subset(targets: int, masked: int) -> float:
  """Returns w(masked) = 1 / (masked C(targets, masked)), the weight of each subset of that size."""
  if not 1 <= masked <= targets:
    raise ValueError(f"{masked} of {targets} entries masked: at least 1, and at most all")
  return 1 / (masked * math.comb(targets, masked))


def log_conditionals(model: Network, params: Params, canvas: Canvas) -> Float[Array, "B L"]:
  """log p of every asked entry given the given ones alone, nats; 0 elsewhere. One pass.

  What a masked diffusion model predicts of its masked tokens: no asked entry sees another.
  """
  query = jnp.broadcast_to(jnp.arange(canvas.size), canvas.token.shape)
  frontier = two_stream(model.config, canvas, canvas.is_target.astype(jnp.int32), query)
  logits = model.forward(params, frontier, rows=query + canvas.size).logits
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  token = jnp.clip(canvas.token, 0, logits.shape[-1] - 1)
  own = jnp.take_along_axis(logits, token[:, :, None], axis=2)[:, :, 0]
  return jnp.where(canvas.is_target, own - jax.nn.logsumexp(logits, axis=2), 0)


def exact_masked_bound(
  model: Network, params: Params, canvas: Canvas, *, batch: int = 64
) -> Float[np.ndarray, " B"]:
  """-NELBO of every row, in nats, by all subsets of its asked entries.

  The canvas's tokens are the text. Raises ValueError, before compilation, for more than 12 asked
  entries (`sampled_masked_bound` has no such limit), a row without one, tokens outside the
  vocabulary, and entries that are both given and asked.
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
  """An unbiased estimate of -NELBO of every row from `samples` maskings, and its standard error.

  The number masked is uniform on 1..A and stratified over the samples, the entries uniform given
  it; a masking counts A / k times the sum of its k conditionals (LLaDA 2502.09992, eq. 6). The
  error is that of independent samples, so with strata rather too large; NaN for one sample.
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
    raise ValueError("a row asks for nothing: it has no bound")
  if known.min() < 0 or known.max() >= vocab:
    raise ValueError(f"asked tokens are outside 0..{vocab - 1}")
  return is_target


def _sums(model, params, canvas, rows, masks, batch) -> Float[np.ndarray, " N"]:
  """Of the conditionals of masked entries, for row rows[n] of the canvas with masks[n] masked."""
  out = []
  batch = min(batch, len(rows))
  for first in range(0, len(rows), batch):
    # The last batch is filled up with its first rows again: one compilation for all.
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
