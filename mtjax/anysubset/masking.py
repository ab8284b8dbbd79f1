"""Which tokens of a training row are asked: rates, their windows and warm-up, spans."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class Masking:
  """How the asked tokens of a row are drawn.

  The share of a row's tokens that is asked is uniform over a window, stratified: one rate from
  each of B equal parts of it for the B rows of a batch, which are all rows of a step, whatever
  parts it is computed in and devices it is on (`mtjax.train.step.Loss`). The window moves linearly
  from `start` to `end` over the first `warmup` steps (2504.20456: from .15 to [.85, .99] over
  5,000). With chance `spans`, a row is asked in runs of tokens, of `span` on average (geometric);
  else token by token. `queries`: entries a row that are scored, a uniform choice where more are
  asked.
  """

  start: tuple[float, float] = (0.15, 0.15)
  end: tuple[float, float] = (0.85, 0.99)
  warmup: int = 0
  spans: float = 0.0
  span: float = 8.0
  queries: int = 0  # 0: all

  def __post_init__(self):
    for name in ("start", "end"):
      low, high = getattr(self, name)
      if not 0 <= low <= high <= 1:
        raise ValueError(f"masking.{name} is a window within 0 to 1, got {(low, high)}")
    if not 0 <= self.spans <= 1:
      raise ValueError(f"masking.spans is a probability, got {self.spans}")
    if self.span < 1:
      raise ValueError(f"masking.span is at least 1 token, got {self.span}")
    if self.warmup < 0 or self.queries < 0:
      raise ValueError(f"masking has a negative warmup or queries: {self}")

  def rates(self, key: PRNGKeyArray, batch: int, step: Int[Array, ""]) -> Float[Array, " B"]:
    """One rate a row, stratified."""
    done = jnp.minimum(step / max(self.warmup, 1), 1.0) if self.warmup else 1.0
    low, high = (a + (b - a) * done for a, b in zip(self.start, self.end, strict=True))
    part = jax.random.permutation(jax.random.fold_in(key, 0), batch)
    inside = jax.random.uniform(jax.random.fold_in(key, 1), (batch,))
    return low + (high - low) * (part + inside) / batch

  def draw(
    self, key: PRNGKeyArray, open_: Bool[Array, "B L"], step: Int[Array, ""]
  ) -> Bool[Array, "B L"]:
    """Which of the entries that are `open_` are asked: rate * their number, rounded up."""
    batch, size = open_.shape
    keys = jax.random.split(key, 5)
    rate = self.rates(keys[0], batch, step)
    in_runs = jax.random.uniform(keys[1], (batch, 1)) < self.spans
    begins = jax.random.uniform(keys[2], (batch, size)) * self.span < 1
    run = jnp.cumsum(begins | ~in_runs, axis=1)
    # All of a run are asked or none, but for one run that the exact number may cut.
    of_run = jnp.take_along_axis(jax.random.uniform(keys[3], (batch, size + 1)), run, axis=1)
    of_run = jnp.where(open_, of_run, jnp.inf)
    place = jnp.argsort(jnp.argsort(of_run, axis=1, stable=True), axis=1)
    count = jnp.ceil(rate * jnp.sum(open_, axis=1))
    return open_ & (place < count[:, None])


def choose(
  key: PRNGKeyArray, is_target: Bool[Array, "B L"], queries: int
) -> tuple[Int[Array, "B Q"], Float[Array, " B"]]:
  """Indices of Q = `queries` asked entries (-1: fewer are asked), and the weight of each.

  A uniform choice where more are asked, each then standing for asked / Q: the weighted sum over
  the chosen has the sum over all asked as its mean.
  """
  lot = jnp.where(is_target, jax.random.uniform(key, is_target.shape), jnp.inf)
  chosen = jnp.argsort(lot, axis=1)[:, :queries]
  count = jnp.sum(is_target, axis=1)
  chosen = jnp.where(jnp.arange(queries) < count[:, None], chosen, -1)
  return chosen, jnp.maximum(count / queries, 1.0)
