"""Which tokens of a training row are targets: rates, their windows and warm-up, spans."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class Masking:
  """The rule by which the target tokens of a row are sampled.

  The share of a row's tokens that are targets is uniform over a window, stratified: the B rows of
  a batch have one rate from each of B equal parts of the window. B counts all rows of a step,
  whatever parts it is computed in and devices it is on (`Objective.prepare`). The window moves
  linearly from `start` to `end` over the first `warmup` steps (2504.20456: from .15 to [.85, .99]
  over 5,000). With probability `spans`, the targets of a row are runs of tokens, of `span` tokens
  on average (geometric); otherwise they are chosen token by token. `queries`: the number of entries
  per row that are scored, a uniform choice where there are more targets.
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
        raise ValueError(f"{name} must be a window within 0 to 1, got {(low, high)}")
    if not 0 <= self.spans <= 1:
      raise ValueError(f"spans must be a probability, within 0 to 1, got {self.spans}")
    if self.span < 1:
      raise ValueError(f"span must be at least 1 token, got {self.span}")
    if self.warmup < 0 or self.queries < 0:
      raise ValueError(f"warmup and queries must not be negative, got {self}")

  def rates(self, key: PRNGKeyArray, batch: int, step: Int[Array, ""]) -> Float[Array, " B"]:
    """Samples one rate per row, stratified over the rows."""
    done = jnp.minimum(step / max(self.warmup, 1), 1.0) if self.warmup else 1.0
    low, high = (a + (b - a) * done for a, b in zip(self.start, self.end, strict=True))
    part = jax.random.permutation(jax.random.fold_in(key, 0), batch)
    inside = jax.random.uniform(jax.random.fold_in(key, 1), (batch,))
    return low + (high - low) * (part + inside) / batch

  def sample(
    self, key: PRNGKeyArray, open_: Bool[Array, "B L"], step: Int[Array, ""]
  ) -> Bool[Array, "B L"]:
    """Samples which of the `open_` entries are targets: rate times their number, rounded up."""
    batch, size = open_.shape
    keys = jax.random.split(key, 5)
    rate = self.rates(keys[0], batch, step)
    in_runs = jax.random.uniform(keys[1], (batch, 1)) < self.spans
    begins = jax.random.uniform(keys[2], (batch, size)) * self.span < 1
    run = jnp.cumsum(begins | ~in_runs, axis=1)
    # All tokens of a run are targets or none is; the exact number may cut one run.
    of_run = jnp.take_along_axis(jax.random.uniform(keys[3], (batch, size + 1)), run, axis=1)
    of_run = jnp.where(open_, of_run, jnp.inf)
    place = jnp.argsort(jnp.argsort(of_run, axis=1, stable=True), axis=1)
    count = jnp.ceil(rate * jnp.sum(open_, axis=1))
    return open_ & (place < count[:, None])


def choose(
  key: PRNGKeyArray, is_target: Bool[Array, "B L"], queries: int
) -> tuple[Int[Array, "B Q"], Float[Array, " B"]]:
  """Returns indices of Q = `queries` targets (-1: there are fewer), and the weight of each.

  Where there are A > Q targets, the choice is uniform and each has weight A / Q: the weighted sum
  over the chosen has the sum over all targets as its mean.
  """
  lot = jnp.where(is_target, jax.random.uniform(key, is_target.shape), jnp.inf)
  chosen = jnp.argsort(lot, axis=1)[:, :queries]
  count = jnp.sum(is_target, axis=1)
  chosen = jnp.where(jnp.arange(queries) < count[:, None], chosen, -1)
  return chosen, jnp.maximum(count / queries, 1.0)
