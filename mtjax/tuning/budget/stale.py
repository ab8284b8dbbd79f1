"""Budgets of earlier rounds: the whole maximum, without a look at what is drafted now."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

# Weight of a new round, as vLLM's adaptive verification has it: its average keeps 0.8.
MEMORY = 0.2


class StaleBudget(struct.PyTreeNode):
  """What earlier rounds say about the drafts of the next one.

  `ranked[i]` is the running mean of the i-th largest survival of a batch. Ask for the `budget` of a
  round before `update` with its survival: the budget then knows nothing of the round's drafts, and
  may be the number that is best over all, also where speed falls in steps.
  """

  ranked: Float[Array, " M"]

  @classmethod
  def start(cls, batch: int, length: int, hope: float = 0.5) -> "StaleBudget":
    """Returns the state before the first round: each draft is accepted with probability `hope`."""
    each = jnp.repeat(hope ** jnp.arange(1.0, length + 1), batch)
    return cls(each)

  def budget(self, batch: int, passes_per_second: Float[Array, " M"]) -> Int[Array, ""]:
    """Returns the number of drafts with the most expected tokens per second, for `batch` rows.

    passes_per_second[n]: the speed of passes over n entries, all rows together. Raises ValueError
    if it is not known for all drafts.
    """
    size = self.ranked.shape[0]
    if passes_per_second.shape[0] < batch + size + 1:
      raise ValueError(
        f"{batch} rows and {size} drafts are up to {batch + size} entries, and speeds are known "
        f"below {passes_per_second.shape[0]}"
      )
    tokens = batch + jnp.concatenate([jnp.zeros(1), jnp.cumsum(self.ranked)])
    return jnp.argmax(tokens * passes_per_second[batch : batch + size + 1])

  def update(self, survival: Float[Array, "B K"], memory: float = MEMORY) -> "StaleBudget":
    """Returns the state after a round whose drafts had this survival."""
    ranked = -jnp.sort(-jnp.ravel(survival))
    return self.replace(ranked=self.ranked + memory * (ranked - self.ranked))
