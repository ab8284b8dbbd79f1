"""The state of a generation, and how tokens are emitted; all generation loops share them."""

import enum

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, Bool, Int, Key, PyTree

from mtjax import hosts
from mtjax.cache import KVCache, cache_shardings
from mtjax.display.short import short_repr
from mtjax.rounds.stop_strings import StopStrings
from mtjax.sampling.logits import History, Rules
from mtjax.sharding import row_shardings


class Finish(enum.IntEnum):
  """The reason why a row ended."""

  RUNNING = 0
  EOS = 1
  STOP = 2
  LENGTH = 3


class Request(struct.PyTreeNode):
  """The settings of a generation, which do not change; one value per row where rows may differ."""

  rules: Rules
  limit: Int[Array, " B"]  # largest number of tokens to emit; 0: the row only fills the batch
  eos: Int[Array, " E"]
  key: Key[Array, " B"]  # a row's text depends on its own key and nothing else in the batch
  stop: StopStrings | None = None

  __repr__ = short_repr


class DecodeState(struct.PyTreeNode):
  """A generation in progress. The cache holds everything but the last emitted token of a row."""

  cache: KVCache
  tokens: Int[Array, "B L"]  # tokens emitted so far, then zeros
  drafted: Bool[Array, "B L"]  # true for accepted drafts, false for the target's own tokens
  count: Int[Array, " B"]  # number of emitted tokens; tokens[count - 1] is not in the cache yet
  finish: Int[Array, " B"]  # Finish values
  stop_state: Int[Array, " B"]  # states of the automaton of `Request.stop`
  rounds: Int[Array, " B"]  # number of the target's forward passes per row, after the prefill
  history: History | None  # what penalties and constraints need; None without them
  method: PyTree = None  # what the method keeps from round to round

  __repr__ = short_repr

  @property
  def active(self) -> Bool[Array, " B"]:
    """True for rows that have not ended."""
    return self.finish == Finish.RUNNING

  @property
  def last(self) -> Int[Array, " B"]:
    """The last emitted token of each row (count >= 1)."""
    return jnp.take_along_axis(self.tokens, self.count[:, None] - 1, axis=1)[:, 0]


def decode_shardings(state: DecodeState, mesh: Mesh | AbstractMesh) -> DecodeState:
  """Returns the NamedShardings of a generation's state: those of its caches, and rows over `data`.

  `state` has arrays or ShapeDtypeStructs. A method's own caches are split like the target's.
  """
  return _batch_shardings(state, mesh, state.cache.length.shape[0])


def put_batch(tree: PyTree, mesh: Mesh, rows: int) -> PyTree:
  """Returns arrays and caches of `rows` rows on the mesh, split as in `decode_shardings`.

  Arrays without rows are whole on every device.
  """
  return hosts.put(tree, _batch_shardings(tree, mesh, rows))


def _batch_shardings(tree: PyTree, mesh: Mesh | AbstractMesh, rows: int) -> PyTree:
  def shardings(x):
    return cache_shardings(x, mesh) if isinstance(x, KVCache) else row_shardings(x, mesh, rows)

  return jax.tree.map(shardings, tree, is_leaf=lambda x: isinstance(x, KVCache))


def emit(
  state: DecodeState, request: Request, token: Int[Array, "B P"], count: Int[Array, " B"]
) -> tuple[DecodeState, Int[Array, " B"]]:
  """Appends token[b, :count[b]] to every row that is still running, and ends rows where needed.

  A row ends with the first token that is an end token, completes a stop string or reaches the
  limit; what comes after it is dropped. All but token[b, count[b] - 1] count as drafts. Returns the
  state and the number of tokens emitted per row.
  """
  active, width = state.active, token.shape[1]
  place = jnp.arange(width)
  is_eos = jnp.any(token[:, :, None] == request.eos, axis=2)
  is_stop, stop_states = _stops(state, request, token)
  is_full = state.count[:, None] + place + 1 >= request.limit[:, None]
  ends = is_eos | is_stop | is_full
  before_end = jnp.cumsum(ends, axis=1) - ends == 0
  num_emitted = jnp.sum(before_end & (place < count[:, None]) & active[:, None], axis=1)
  last = jnp.maximum(num_emitted - 1, 0)[:, None]

  def at_last(values):
    return jnp.take_along_axis(values, last, axis=1)[:, 0]

  finish = jnp.where(at_last(is_full), int(Finish.LENGTH), int(Finish.RUNNING))
  finish = jnp.where(at_last(is_stop), int(Finish.STOP), finish)
  finish = jnp.where(at_last(is_eos), int(Finish.EOS), finish)
  source = jnp.arange(state.tokens.shape[1]) - state.count[:, None]
  moved = jnp.take_along_axis(token, jnp.clip(source, 0, width - 1), axis=1)
  new = (source >= 0) & (source < num_emitted[:, None])
  history = state.history
  if history is not None:
    history = history.add(token, place < num_emitted[:, None], request.rules.constraint)
  state = state.replace(
    tokens=jnp.where(new, moved, state.tokens),
    drafted=state.drafted | (new & (source < count[:, None] - 1)),
    count=state.count + num_emitted,
    finish=jnp.where(active, finish, state.finish),
    stop_state=jnp.where(active, at_last(stop_states), state.stop_state),
    history=history,
  )
  return state, num_emitted


def _stops(state: DecodeState, request: Request, token):
  """Returns true for each token with which a stop string ends, and the automaton's states."""
  if request.stop is None:
    return jnp.zeros_like(token, bool), jnp.broadcast_to(state.stop_state[:, None], token.shape)

  def advance(before, column):
    after = request.stop.advance(before, column)
    return after, after

  _, states = jax.lax.scan(advance, state.stop_state, token.T)
  return states.T < 0, states.T
