"""What every generation loop shares: its state, how tokens are emitted, how rounds are run."""

import enum
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from mtjax.cache import KVCache
from mtjax.sampling import History, Rules
from mtjax.stopping import StopStrings


class Finish(enum.IntEnum):
  """Why a row ended."""

  RUNNING = 0
  EOS = 1
  STOP = 2
  LENGTH = 3


@struct.dataclass
class Request:
  """What does not change during a generation: settings, one value a row where they differ."""

  rules: Rules
  limit: Int[Array, " B"]  # tokens to emit at most; >= 1
  eos: Int[Array, " E"]
  key: PRNGKeyArray  # [B]: a row's text depends on its own key and nothing else in the batch
  stop: StopStrings | None = None


@struct.dataclass
class DecodeState:
  """A generation in progress. The cache holds everything but the last emitted token of a row."""

  cache: KVCache
  tokens: Int[Array, "B L"]  # emitted so far, then zeros
  count: Int[Array, " B"]  # how many; tokens[count - 1] is not in the cache yet
  finish: Int[Array, " B"]  # Finish values
  stop_state: Int[Array, " B"]
  rounds: Int[Array, " B"]  # target forwards a row took part in after prefill
  history: History | None

  @property
  def active(self) -> Bool[Array, " B"]:
    return self.finish == Finish.RUNNING

  @property
  def last(self) -> Int[Array, " B"]:
    """The last emitted token of each row (count >= 1)."""
    return jnp.take_along_axis(self.tokens, self.count[:, None] - 1, axis=1)[:, 0]


def emit(state: DecodeState, request: Request, token: Int[Array, " B"]) -> DecodeState:
  """Appends one token to every row that is still running, and ends rows that are through."""
  active = state.active
  index = jnp.arange(state.tokens.shape[1])
  here = (index == state.count[:, None]) & active[:, None]
  count = state.count + active
  finish = jnp.where(count >= request.limit, int(Finish.LENGTH), int(Finish.RUNNING))
  stop_state = state.stop_state
  if request.stop is not None:
    stop_state = jnp.where(active, request.stop.advance(stop_state, token), stop_state)
    finish = jnp.where(stop_state < 0, int(Finish.STOP), finish)
  is_eos = jnp.any(token[:, None] == request.eos, axis=1)
  finish = jnp.where(is_eos, int(Finish.EOS), finish)
  return state.replace(
    tokens=jnp.where(here, token[:, None], state.tokens),
    count=count,
    finish=jnp.where(active, finish, state.finish),
    stop_state=stop_state,
    history=None if state.history is None else state.history.add(token, active),
  )


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
