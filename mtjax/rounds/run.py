"""The one loop that runs the rounds of every method."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mtjax.rounds.state import DecodeState


def run(
  step: Callable[[DecodeState], DecodeState], state: DecodeState, most: Int[Array, ""] | int | None
) -> DecodeState:
  """Rounds until every row is finished, or `most` of them: one while_loop."""

  def unfinished(carry):
    done, state = carry
    running = jnp.any(state.active)
    return running if most is None else running & (done < most)

  def body(carry):
    done, state = carry
    return done + 1, step(state)

  return jax.lax.while_loop(unfinished, body, (jnp.int32(0), state))[1]
