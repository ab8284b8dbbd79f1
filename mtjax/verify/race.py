"""Sampling without replacement as an exponential race: who comes when, without enumeration.

Token i arrives after a time Exp(q_i); the order of arrival is that of sampling one token after the
other without replacement. Given the time t the tokens are independent, so the number of them that
has arrived has the generating function prod_i (exp(-q_i t) + (1 - exp(-q_i t)) z), and
probabilities are one-dimensional integrals over t, taken at t = exp(s - exp(-s)).

Most tokens of a vocabulary are so light that they hardly ever arrive. They enter through the
moments sum q_i^r alone: the power sums of their odds exp(q_i t) - 1, then elementary symmetric
polynomials by Newton's identities. The others are multiplied in one by one.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Float, Int

SPACING = 1 / 12  # distance of the quadrature's nodes; errors stay below 1e-12
HORIZON = 40  # the integrands have fallen by exp(-40) at the last node
LIGHT = 1 / 8  # largest q_i t of a light token
TERMS = 8  # number of terms of the series of exp(q_i t) after the first


@dataclasses.dataclass(frozen=True)
class Race:
  """`n` samples without replacement from q > 0, which has at least n tokens."""

  q: Float[np.ndarray, " V"]
  n: int

  @functools.cached_property
  def _heaviest(self) -> Int[np.ndarray, " n"]:
    return np.argpartition(-self.q, self.n - 1)[: self.n]

  @functools.cached_property
  def _slowest(self) -> float:
    """Returns the rate at which the integrands end: that of all but the n - 1 largest q."""
    rest = self.q.copy()
    order = np.argsort(-self.q[self._heaviest], kind="stable")[: self.n - 1]
    rest[self._heaviest[order]] = 0
    return rest.sum()

  @functools.cached_property
  def heavy(self) -> Int[np.ndarray, " H"]:
    """Returns the tokens that are not light, in the order of the vocabulary; at most 320 + n."""
    is_heavy = self.q > LIGHT * self._slowest / HORIZON
    is_heavy[self._heaviest] = True
    return np.flatnonzero(is_heavy)

  @functools.cached_property
  def _nodes(self) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    s = np.arange(-3.7, math.log(HORIZON / self._slowest), SPACING)
    times = np.exp(s - np.exp(-s))
    return times, times * (1 + np.exp(-s)) * SPACING

  @functools.cached_property
  def _light(self) -> Float[np.ndarray, " V"]:
    out = self.q.copy()
    out[self.heavy] = 0
    return out

  def _moments(self, add) -> Float[np.ndarray, "R *M"]:
    """Returns add((q_i * last node)^r) over the light tokens, for r = 1, ..., R."""
    scaled = self._light * self._nodes[0][-1]
    power, out = np.ones_like(scaled), []
    for _ in range(self.n - 1 + TERMS):
      power *= scaled
      out.append(add(power))
    return np.array(out)

  @functools.cached_property
  def _of_prefixes(self) -> Float[np.ndarray, "R V"]:
    return self._moments(np.cumsum)

  def all_inside(self, cuts: Int[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """Returns the probability that all n samples are among the first cuts[m] + 1 tokens.

    These tokens H have their first n arrivals before anything else arrives with probability
    1 - (1 - q(H)) int exp(-t) sum_{k<n} e_k(exp(q_i t) - 1, i in H) dt.
    """
    weights = self._nodes[1]
    polynomials = _polynomials(self._odds_sums(self._of_prefixes[:, cuts]), self.n)  # [n, M, T]
    shares = self._heavy_shares[np.searchsorted(self.heavy, cuts, side="right")]
    total = np.einsum("kmt,mkt,t->m", polynomials, shares, weights)
    outside = np.append(np.cumsum(self.q[::-1])[::-1][1:], 0.0)  # without cancellation
    return 1 - outside[cuts] * total

  def places(self, tokens: Int[np.ndarray, " M"]) -> Float[np.ndarray, "n M"]:
    """Returns [j, m]: the probability that sample j is tokens[m].

    The token arrives at t when j others have arrived: int q_x exp(-q_x t) P(j of the others by t)
    dt.
    """
    times, weights = self._nodes
    mass, heavy = self._light.sum(), set(self.heavy.tolist())
    whole = self._odds_sums(self._moments(np.sum)[:, None])[:, 0]
    out = np.zeros((self.n, tokens.size))
    for column, token in enumerate(tokens.tolist()):
      others, powers, left = heavy - {token}, whole, mass
      if token not in heavy:
        odds = np.expm1(self.q[token] * times)
        powers = whole - odds ** np.arange(1, len(whole) + 1)[:, None]
        left = mass - self.q[token]
      light = _polynomials(powers, self.n) * np.exp(-left * times)
      arrived = _arrivals(self.q[sorted(others)], times, self.n)[-1]
      density = self.q[token] * np.exp(-self.q[token] * times) * weights
      for j in range(self.n):
        out[j, column] = np.sum(density * np.sum(light[: j + 1] * arrived[j::-1], axis=0))
    return out

  def _odds_sums(self, sums: Float[np.ndarray, "R M"]) -> Float[np.ndarray, "{self.n-1} M T"]:
    """Returns sum_i (exp(q_i t) - 1)^m for m = 1, ..., n - 1."""
    series = np.append(0.0, 1 / np.cumprod(np.arange(1.0, len(sums) + 1)))  # of exp(x) - 1
    steps = (self._nodes[0] / self._nodes[0][-1]) ** np.arange(1, len(sums) + 1)[:, None]
    power, out = np.eye(1, series.size)[0], []
    for _ in range(self.n - 1):
      power = np.convolve(power, series)[: series.size]
      out.append(sums.T @ (power[1:, None] * steps))
    return np.array(out).reshape(self.n - 1, sums.shape[1], steps.shape[1])

  @functools.cached_property
  def _heavy_shares(self) -> Float[np.ndarray, "prefixes {self.n} T"]:
    """Returns [m, k]: the factor by which the first m heavy tokens multiply e_k of the light ones.

    The factor includes exp(-t). At most n - 1 - k of the m have arrived by t, and none of the
    others, heavy or light.
    """
    times, mass = self._nodes[0], self.q[self.heavy]
    waiting = self._light.sum() + np.append(np.cumsum(mass[::-1])[::-1], 0.0)
    few = np.cumsum(_arrivals(mass, times, self.n), axis=1)[:, ::-1]
    return few * np.exp(-waiting[:, None] * times)[:, None]


def _arrivals(
  q: Float[np.ndarray, " H"], times: Float[np.ndarray, " T"], n: int
) -> Float[np.ndarray, "H+1 {n} T"]:
  """Returns [m, k]: the probability that k of the first m tokens have arrived by each time."""
  out = np.zeros((q.size + 1, n, times.size))
  out[0, 0] = 1
  late, early = np.exp(-q[:, None] * times), -np.expm1(-q[:, None] * times)
  for m in range(q.size):
    np.multiply(out[m], late[m], out=out[m + 1])
    out[m + 1, 1:] += out[m, :-1] * early[m]
  return out


def _polynomials(powers: Float[np.ndarray, "{n-1} *M"], n: int) -> Float[np.ndarray, "{n} *M"]:
  """Returns the elementary symmetric polynomials e_0, ..., e_(n-1) from power sums (Newton)."""
  out = [np.ones(powers.shape[1:])]
  for k in range(1, n):
    terms = ((-1) ** i * out[k - 1 - i] * powers[i] for i in range(k))
    out.append(sum(terms) / k)
  return np.array(out)
