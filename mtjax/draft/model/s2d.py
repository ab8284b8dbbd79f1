"""Sorted drafts (2407.01955): a small model of nested sub-models, or the target's first layers."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.draft.model.early_exit import EarlyExit
from mtjax.draft.protocol import Context, Round
from mtjax.models import Model
from mtjax.rounds.prefill import commit_prompt
from mtjax.types import Draft

# Entries that the deeper layers read at a time.
_CHUNK = 4


class S2DState(struct.PyTreeNode):
  """The state of each group of layers: group g reads inputs[g], slot by slot, into caches[g].

  No group is ahead of the one before it. A token that left early owes its deeper keys and values:
  its hidden state waits in the inputs of the next group, which catches up when a token goes
  deeper.
  """

  caches: tuple[KVCache, ...]
  inputs: tuple[Array, ...]  # tokens [B, S] for the first group, hidden states [B, S, D] for others
  length: Int[Array, " B"]  # of the text, including the token emitted last
  left: Int[Array, " E"]  # number of drafts sampled at each exit, over all rounds and rows


@dataclasses.dataclass(frozen=True)
class S2D(EarlyExit):
  """`EarlyExit` of a model of its own: params are that model's, in the target's vocabulary.

  One such draft serves any target of its vocabulary. Its caches take drafts as they are read and
  forget what was refused, in every group. The prompt is read by all groups at once.
  """

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> S2DState:
    # Drafts are read before it is known how many are kept.
    capacity = min(prompt.shape[1] + max_new + self.length, self.model.config.max_position)
    cache, _ = commit_prompt(self.model.prefix(self.exits[-1]), params, prompt, length, capacity)
    shape = (prompt.shape[0], capacity)
    wide = (*shape, self.model.config.dim)
    return S2DState(
      caches=tuple(cache.replace(layers=cache.layers[a:b]) for a, b in self.groups),
      inputs=(
        jnp.zeros(shape, jnp.int32),
        *(jnp.zeros(wide, self.model.config.dtype) for _ in self.exits[1:]),
      ),
      length=length + 1,
      left=jnp.zeros((len(self.exits),), jnp.int32),
    )

  def propose(self, params: PyTree, state: S2DState, context: Context) -> tuple[Draft, S2DState]:
    def read(kept, tokens, place):
      token = jax.lax.dynamic_index_in_dim(tokens, place, 1)
      text = _write(kept.inputs[0], token, kept.length - 1 + place)
      kept = kept.replace(inputs=(text, *kept.inputs[1:]))
      return kept, functools.partial(self._run, params, state.length + place)

    draft, state, left = self.draft(context, state, read)
    return draft, state.replace(left=state.left + left)

  def update(self, state: S2DState, round: Round) -> S2DState:
    text, places = state.inputs[0], jnp.arange(round.token.shape[1])
    # What was read stays where it is the text, whoever drafted it; not the last token, after which
    # logits will be wanted.
    slots = state.length[:, None] + places
    same = (_take(text, slots) == round.token) & (places < round.num_emitted[:, None] - 1)
    kept = state.length + jnp.sum(jnp.cumprod(same, axis=1), axis=1)
    # The root as well: the first of all was emitted before there was a round.
    emitted = jnp.concatenate([round.tree.token[:, :1], round.token], axis=1)
    text = _write(text, emitted, state.length - 1, 1 + round.num_emitted)
    return S2DState(
      caches=tuple(c.replace(length=jnp.minimum(c.length, kept)) for c in state.caches),
      inputs=(text, *state.inputs[1:]),
      length=state.length + round.num_emitted,
      left=state.left,
    )

  def _run(self, params, wanted, state, group, rows):
    """A group reads up to slot wanted - 1 in `rows`; the logits after that slot."""
    first, last = self.groups[group]
    batch, width = rows.shape[0], _CHUNK if group else 1
    path = jnp.broadcast_to(jnp.arange(width), (batch, width))
    is_last_group = group == len(self.groups) - 1
    target = jnp.where(rows, wanted, state.caches[group].length)

    def behind(carry):
      return jnp.any(carry[0].length < target)

    def read_on(carry):
      cache, above, logits = carry
      count = jnp.clip(target - cache.length, 0, width)
      source = _take(state.inputs[group], cache.length[:, None] + path)
      token, hidden = (jnp.zeros_like(path), source) if group else (source, None)
      frontier = frontier_lib.causal(token, start=cache.length, length=count)
      output, hidden = self.model.segment(
        params, frontier, cache, jnp.maximum(count - 1, 0)[:, None],
        first=first, last=last, hidden=hidden,
      )  # fmt: skip
      if not is_last_group:
        above = _write(above, hidden, cache.length, count)
      arrives = (count > 0) & (cache.length + count == target)
      logits = jnp.where(arrives[:, None], output.logits[:, 0], logits)
      return cache.commit(output.kv, frontier.position, path, count), above, logits

    above = None if is_last_group else state.inputs[group + 1]
    logits = jnp.zeros((batch, self.model.config.vocab_size))
    start = (state.caches[group], above, logits)
    cache, above, logits = jax.lax.while_loop(behind, read_on, start)
    caches = (*state.caches[:group], cache, *state.caches[group + 1 :])
    inputs = state.inputs
    if not is_last_group:
      inputs = (*inputs[: group + 1], above, *inputs[group + 2 :])
    return state.replace(caches=caches, inputs=inputs), logits


@dataclasses.dataclass(frozen=True)
class SelfS2D(EarlyExit):
  """`EarlyExit` of the target itself: `model` and params are the target's own.

  Self-speculation as in 2404.16710, for targets that were trained with exits (others are rarely
  right so early). The text's keys and values are in the target's cache, whose first layers are
  read and never written: no second cache, no prefill. What is being drafted has none yet and is
  computed anew for every token, up to `length` + 1 entries in one pass.
  """

  # The target goes on from the last exit itself: what is not sure there is better not drafted.
  at_the_last: ClassVar[float] = 0.5

  length: int = 3

  def check(self, target: Model) -> None:
    """Raises ValueError for another target than the model it drafts with."""
    if target != self.model:
      raise ValueError("SelfS2D drafts with the target's first layers: its model is another one")

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> Int[Array, " E"]:
    return jnp.zeros((len(self.exits),), jnp.int32)

  def propose(
    self, params: PyTree, state: Int[Array, " E"], context: Context
  ) -> tuple[Draft, Int[Array, " E"]]:
    cache, config = context.cache, self.model.config

    def read(kept, tokens, place):
      frontier = frontier_lib.causal(tokens, start=cache.length, length=place + 1)
      row = jnp.full((tokens.shape[0], 1), place)

      def run(hidden, group, rows):
        first, last = self.groups[group]
        own = cache.replace(layers=cache.layers[first:last])

        def through(hidden):
          output, above = self.model.segment(
            params, frontier, own, row, first=first, last=last, hidden=hidden
          )
          # Nothing goes on from the model's last layer.
          return above if last < len(config.layers) else kept, output.logits[:, 0]

        def past(hidden):
          return hidden, jnp.zeros((tokens.shape[0], config.vocab_size))

        return jax.lax.cond(jnp.any(rows), through, past, hidden) if group else through(None)

      return kept, run

    hidden = jnp.zeros((cache.length.shape[0], self.length + 1, config.dim), config.dtype)
    draft, _, left = self.draft(context, hidden, read)
    return draft, state + left

  def update(self, state: Int[Array, " E"], round: Round) -> Int[Array, " E"]:
    return state


def _take(values, slots):
  """Returns values[b, slots[b, i]]; for slots past the end, the last."""
  slots = jnp.minimum(slots, values.shape[1] - 1)
  if values.ndim == 3:
    slots = slots[:, :, None]
  return jnp.take_along_axis(values, slots, axis=1)


def _write(values, new, start, count=None):
  """Returns values with new[b, :count[b]] from slot start[b] on; those past the end are dropped."""
  index = jnp.arange(new.shape[1])
  slots = start[:, None] + index
  if count is not None:
    slots = jnp.where(index < count[:, None], slots, values.shape[1])
  return values.at[jnp.arange(values.shape[0])[:, None], slots].set(new, mode="drop")
