"""The cache and the logits of a small model that drafts a tree, for several drafters."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.draft.model.reading import catch_up
from mtjax.draft.protocol import Context, Round
from mtjax.draft.text_buffer import TextBuffer
from mtjax.models import Model, Params
from mtjax.rounds.prefill import commit_prompt
from mtjax.rounds.state import Request
from mtjax.sampling.logits import process
from mtjax.types import LayerKV, Output


class Reading(struct.PyTreeNode):
  """Drafts that the model has read in this round, none of them committed."""

  kv: tuple[LayerKV, ...]  # keys and values of R entries
  position: Int[Array, "B R"]
  entry: Int[Array, "B N"]  # entry of each node of the tree; -1: not read


class TreeState(struct.PyTreeNode):
  """The text and the model's cache, which holds a beginning of the text and nothing else."""

  cache: KVCache
  text: TextBuffer
  reading: Reading  # empty, except between propose and update

  @classmethod
  def start(
    cls,
    model: Model,
    params: Params,
    prompt: Int[Array, "B P"],
    length: Int[Array, " B"],
    *,
    max_new: int,
    nodes: int,
    reads: int,
  ) -> "TreeState":
    """Returns the state after the prompts, for trees of `nodes`, at most `reads` of them read."""
    capacity = min(prompt.shape[1] + max_new, model.config.max_position)
    cache, _ = commit_prompt(model, params, prompt, length, capacity)
    sizes = dict(max_new=max_new, nodes=nodes, reads=reads)
    return cls.start_unread(model, prompt, length, **sizes).replace(cache=cache)

  @classmethod
  def start_unread(
    cls,
    model: Model,
    prompt: Int[Array, "B P"],
    length: Int[Array, " B"],
    *,
    max_new: int,
    nodes: int,
    reads: int,
  ) -> "TreeState":
    """Returns the state before the model has read the prompts: the first `catch_up` does."""
    batch = prompt.shape[0]
    cache = model.allocate(batch, min(prompt.shape[1] + max_new, model.config.max_position))
    size = max(reads, 1)
    empty = model.allocate(batch, size)  # at least `size` slots
    kv = jax.tree.map(lambda x: x[:, :, :size], empty.layers)
    entry = jnp.full((batch, nodes), -1, jnp.int32)
    reading = Reading(kv, empty.position[:, :size], entry)
    return cls(cache, TextBuffer.of_prompt(prompt, length, max_new), reading)

  def catch_up(
    self, model: Model, params: Params, context: Context
  ) -> tuple["TreeState", Float[Array, "B 1 V"]]:
    """Reads what the cache lacks of the text; returns the logits after its last token, the root.

    From round to round that is the last token, and the draft before it if that was a leaf.
    """
    # The prefill emitted a token that was in no update.
    first = (context.step == 1) & context.active
    text = self.text.append(context.last[:, None], first.astype(jnp.int32))
    cache, logits = catch_up(model, params, self.cache, text)
    return self.replace(cache=cache, text=text), logits

  def read(
    self,
    model: Model,
    params: Params,
    token: Int[Array, "B R"],
    parent: Int[Array, "#B R"],
    last: int,
    valid: Bool[Array, "B R"] | None = None,
  ) -> tuple[Output, Int[Array, "B R"]]:
    """Returns a forward pass over drafts, and their positions; nothing is committed.

    parent: an entry before, or -1 for a child of the tree's root, which is in the cache. Logits
    are those of the `last` last entries.
    """
    batch, size = token.shape
    parent = jnp.broadcast_to(parent, (batch, size))
    frontier = frontier_lib.tree(token, parent, start=self.cache.length, valid=valid)
    rows = jnp.broadcast_to(jnp.arange(size - last, size), (batch, last))
    return model.forward(params, frontier, self.cache, rows), frontier.position

  def update(self, round: Round) -> "TreeState":
    """Commits the accepted drafts that were read: all, but a leaf at the end of the path."""
    path = round.verdict.path[:, 1:][:, : self.cache.capacity]
    entry = jnp.take_along_axis(self.reading.entry, path, axis=1, mode="clip")
    accepted = jnp.arange(path.shape[1]) < round.verdict.count[:, None] - 1
    read = jnp.sum(jnp.cumprod(accepted & (entry >= 0), axis=1), axis=1)
    count = jnp.where(round.num_emitted > 0, read, 0)
    cache = self.cache.commit(self.reading.kv, self.reading.position, jnp.maximum(entry, 0), count)
    return TreeState(
      cache=cache,
      text=self.text.append(round.token, round.num_emitted),
      reading=self.reading.replace(entry=jnp.full_like(self.reading.entry, -1)),
    )


def warm_rows(request: Request) -> Bool[Array, " B"]:
  """Returns the rows that sample."""
  temperature = request.rules.temperature
  return jnp.zeros(request.limit.shape, bool) if temperature is None else temperature > 0


def processed_logits(logits: Float[Array, "B I V"], request: Request) -> Float[Array, "B I V"]:
  """Returns processed logits to sample drafts from, by the request's rules without penalties.

  Rows that do not sample get those of temperature 1, to rank tokens by.
  """
  rules = request.rules
  if rules.temperature is None:
    return logits if rules.logit_bias is None else logits + rules.logit_bias[:, None]
  temperature = jnp.where(rules.temperature > 0, rules.temperature, 1)
  return process(logits, rules.without_history.replace(temperature=temperature))
