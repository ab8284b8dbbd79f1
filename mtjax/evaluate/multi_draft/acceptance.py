"""How often a verifier accepts one of n drafts at a position, averaged over drafts and coins.

Each rule of `mtjax.verify` takes the tokens that were drafted. Here its acceptance is averaged over
all drafts by formula, so that no draft is enumerated: V^n of them are too many for the vocabulary
of a language model. Tests compare every formula with enumeration of the rule itself.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mtjax.sampling.categorical import argmax
from mtjax.sampling.logits import Seed
from mtjax.types import DraftScheme
from mtjax.verify.probs import normalise
from mtjax.verify.rules.kseq import division

# The lossless rules for several drafts at a node, by how these are sampled.
RULES: dict[DraftScheme, tuple[str, ...]] = {
  DraftScheme.WITH_REPLACEMENT: ("rrs_with", "kseq"),
  DraftScheme.WITHOUT_REPLACEMENT: ("rrs_without",),
  DraftScheme.GREEDY_PLUS_ONE: ("greedy_plus_one",),
  DraftScheme.PAIR: ("spechub",),
  DraftScheme.DELTA: ("delta",),
}
_AT_ONCE = 32  # positions whose sampled refusals are in memory at the same time


class Acceptance(NamedTuple):
  """Probabilities that one of n drafts is accepted, by rule, for M positions."""

  mean: dict[str, Float[np.ndarray, "M n"]]
  # Standard error of `mean` where drafts had to be sampled; zeros where it is exact.
  error: dict[str, Float[np.ndarray, "M n"]]


def acceptance(
  p: Float[np.ndarray, "M V"],
  q: Float[np.ndarray, "M V"],
  drafts: Sequence[int],
  *,
  samples: int = 16,
  key: Seed = 0,
) -> Acceptance:
  """Returns the acceptance of every rule of `RULES` for each number of drafts, in float64.

  p, q: the target's and the draft model's probabilities at M positions. Exact but for
  `rrs_without` of three and more drafts, which averages `samples` sequences of refused drafts.
  `spechub` has two drafts always: it is NaN for other numbers. Raises ValueError for numbers of
  drafts below 1 or above V, fewer than two samples, and p and q of different shapes.
  """
  if p.shape != q.shape or p.ndim != 2:
    raise ValueError(f"p and q are [positions, V], got shapes {p.shape} and {q.shape}")
  if not drafts or min(drafts) < 1 or max(drafts) > p.shape[1]:
    raise ValueError(f"numbers of drafts are from 1 to V = {p.shape[1]}, got {list(drafts)}")
  if samples < 2:
    raise ValueError(f"a standard error needs at least 2 samples, got {samples}")
  key = jax.random.key(key) if isinstance(key, int) else key
  with jax.enable_x64(True):
    probs = jnp.asarray(p, jnp.float64), jnp.asarray(q, jnp.float64)
    mean, error = _all_rules(tuple(drafts), samples)(*probs, jax.random.split(key, len(p)))
  return Acceptance(*({name: np.asarray(x) for name, x in part.items()} for part in (mean, error)))


@functools.cache
def _all_rules(drafts: tuple[int, ...], samples: int):
  def at(position):
    p, q, key = position
    mean = {
      "rrs_with": rrs_with(p, q, max(drafts))[jnp.asarray(drafts) - 1],
      "kseq": jax.vmap(lambda n: kseq(p, q, n))(jnp.asarray(drafts, p.dtype)),
      "greedy_plus_one": jnp.stack([greedy_plus_one(p, q, n) for n in drafts]),
      "spechub": jnp.stack([spechub(p, q) if n == 2 else jnp.nan * p[0] for n in drafts]),
      "delta": jnp.stack([delta(p, q, n) for n in drafts]),
    }
    error = {name: jnp.zeros_like(x) for name, x in mean.items()}
    mean["rrs_without"], error["rrs_without"] = rrs_without(p, q, drafts, key, samples)
    return mean, error

  return jax.jit(lambda p, q, keys: jax.lax.map(at, (p, q, keys), batch_size=_AT_ONCE))


def rrs_with(p: Float[Array, " V"], q: Float[Array, " V"], max_n: int) -> Float[Array, " n"]:
  """`mtjax.verify.rules.rrs.with_replacement` of 1..max_n drafts: 1 - Z(l_(n+1)).

  With Z(l) = sum (p - l q)+, l_1 = 0 and l_(k+1) = l_k + Z(l_k): clipping once more only raises l,
  so that after k - 1 refusals the target's distribution is norm((p - l_k q)+), whatever was
  refused, and the k-th draft is refused with probability Z(l_(k+1)) / Z(l_k).
  """

  def step(level, _):
    level += _excess(p, q, level)
    return level, 1 - _excess(p, q, level)

  return jax.lax.scan(step, jnp.zeros_like(p[0]), length=max_n)[1]


def rrs_without(
  p: Float[Array, " V"],
  q: Float[Array, " V"],
  drafts: Sequence[int],
  key: PRNGKeyArray,
  samples: int,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
  """`mtjax.verify.rules.rrs.without_replacement`: means and their standard errors.

  As `rrs_with`, but l_(k+1) = l_k + Z(l_k) / s_k, where s_k is the mass of q that the refused
  drafts x_1..x_(k-1) leave. A refused token has p_k = 0 ever after, so nothing else depends on
  which tokens were refused. All n drafts are refused with probability E[Z(l_(n+1))], x_k sampled
  from norm((q_k - p_k)+). For n = 2 the mean over x_1 is a sum; for more, sequences are sampled.
  """
  exact = jnp.stack([1 - _excess(p, q, jnp.ones_like(p[0])), 1 - _both_refused(p, q)])
  if max(drafts) <= 2:
    mean = exact[jnp.asarray(drafts) - 1]
    return mean, jnp.zeros_like(mean)
  accepted = 1 - _refusals(p, q, max(drafts), key, samples)
  error = jnp.std(accepted, axis=0, ddof=1) / samples**0.5
  at = jnp.asarray(drafts) - 1
  return jnp.mean(accepted, axis=0).at[:2].set(exact)[at], error.at[:2].set(0)[at]


def kseq(p: Float[Array, " V"], q: Float[Array, " V"], n: Float[Array, ""]) -> Float[Array, ""]:
  """`mtjax.verify.rules.kseq.kseq`: each of n independent drafts is taken with probability beta."""
  rho = division(p, q, n)
  return 1 - (1 - jnp.sum(jnp.minimum(q, p / rho))) ** n


def greedy_plus_one(p: Float[Array, " V"], q: Float[Array, " V"], n: int) -> Float[Array, ""]:
  """Greedy-plus-one: the fixed tokens' share of p, and min(p, q~) elsewhere."""
  top = jax.lax.top_k(q, n - 1)[1]
  return jnp.sum(p[top]) + jnp.sum(jnp.minimum(p.at[top].set(0), normalise(q.at[top].set(0))))


def spechub(p: Float[Array, " V"], q: Float[Array, " V"]) -> Float[Array, ""]:
  """`mtjax.verify.rules.spechub.spechub`: all of p that pairs (i, hub) and (hub, i) can take.

  A token i beside the hub a has the mass of both its pairs, q(i) + q(a) q(i) / (1 - q(a)); the hub
  takes what the others leave.
  """
  is_hub = jnp.arange(q.shape[0]) == argmax(q)
  others = jnp.where(is_hub, 0, q)
  pairs = others + jnp.max(q) * normalise(others)
  used = jnp.where(is_hub, 0, jnp.minimum(p, pairs))
  return jnp.sum(used) + jnp.minimum(jnp.sum(jnp.where(is_hub, p, 0)), jnp.sum(pairs - used))


def delta(p: Float[Array, " V"], q: Float[Array, " V"], n: int) -> Float[Array, ""]:
  """`mtjax.verify.rules.delta.delta` of the n tokens with the largest q: their share of p."""
  return jnp.sum(p[jax.lax.top_k(q, n)[1]])


def _excess(p, q, level):
  """Z(l), the mass of p above l q."""
  return jnp.sum(jnp.maximum(p - level * q, 0), axis=-1)


def _quotient(part, whole):
  return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)


def _both_refused(p, q):
  """E[Z(l_3)] over the first refused draft x ~ norm((q - p)+): Z at V levels by prefix sums."""
  refused = jnp.maximum(q - p, 0)
  excess = _excess(p, q, 1.0)
  # 1 - q(x) would cancel for the one token that may hold nearly all of q.
  others = jnp.where(q > 0.5, jnp.sum(jnp.where(q > 0.5, 0, q)), 1 - q)
  level = 1 + _quotient(excess, others)
  ratio = jnp.where(q > 0, p / jnp.where(q > 0, q, 1), jnp.inf)
  order = jnp.argsort(-ratio)
  above = jnp.searchsorted(-ratio[order], -level)  # tokens with p > l q, the first of the order
  mass_p, mass_q = (jnp.append(0.0, jnp.cumsum(x[order]))[above] for x in (p, q))
  return jnp.sum(_quotient(refused, jnp.sum(refused)) * jnp.maximum(mass_p - level * mass_q, 0))


def _refusals(p, q, max_drafts, key, samples):
  """[samples, n]: Z(l_(n+1)) for n = 1..most along sampled sequences of refused drafts."""

  def step(state, coin):
    left, level, excess = state  # q without what was refused, l_k, Z(l_k)
    mass = jnp.sum(left)
    new_level = level + _quotient(excess, mass)
    new_excess = _excess(p, q, new_level)
    weight = jnp.maximum(
      _quotient(left, mass) - _quotient(jnp.maximum(p - level * q, 0), excess), 0
    )
    sums = jnp.cumsum(weight)
    x = jnp.sum(coin * sums[-1] >= sums)
    return (left.at[x].set(0, mode="drop"), new_level, new_excess), new_excess

  def path(key):
    start = q, jnp.zeros_like(p[0]), jnp.sum(p)
    return jax.lax.scan(step, start, jax.random.uniform(key, (max_drafts,), p.dtype))[1]

  return jax.vmap(path)(jax.random.split(key, samples))
