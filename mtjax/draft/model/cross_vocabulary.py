"""A draft model with a tokenizer of its own: text is what it shares with the target."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Int, PyTree

from mtjax.cache import KVCache
from mtjax.draft import host
from mtjax.draft.model.reencoding import Translator
from mtjax.draft.protocol import Context, Round, WithDraftModel, warn_of_draft_heads
from mtjax.draft.text_buffer import TextBuffer
from mtjax.models import Model, check_causal
from mtjax.rounds.prefill import PREFILL_CHUNK, read
from mtjax.sampling.logits import Rules, best_tokens
from mtjax.trees import chain
from mtjax.types import Draft, DraftScheme

# Draft tokens read in one pass between two rounds: usually what the target emitted.
_CHUNK = 8


class CrossState(struct.PyTreeNode):
  text: TextBuffer  # in the target's tokens
  cache: KVCache  # the draft model's
  held: Int[Array, "B D"]  # its tokens that the cache holds, drafts of the last round among them


@dataclasses.dataclass(frozen=True)
class CrossVocabulary(WithDraftModel):
  """A chain of the draft model's greedy text, in at most `max_drafts` tokens of the target.

  Universal assisted generation (transformers). Params are the draft model's and the handle of a
  `Translator`. A round is: encode the text for the draft model, go back in its cache to where its
  tokens differ, read on, draft `length` tokens, encode what they spell for the target. The host is
  called twice, for all rows at once. Drafts are chosen without the target's randomness, so their
  scheme is DELTA at any temperature.

  The draft model's cache has space for `space` of its tokens per token of the target (a model of
  bytes needs 4 or more), within its positions. Rows that need more decode plainly, and so do those
  whose text its tokenizer cannot spell. The model must be the one of the translator's tokenizer.
  Raises ValueError for sizes below 1.
  """

  model: Model
  length: int = 12
  max_drafts: int = 6
  space: int = 6

  def __post_init__(self):
    for name in ("length", "max_drafts", "space"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

  def check(self, target: Model) -> None:
    """Raises ValueError for a draft model that is not causal.

    Any vocabulary goes with any other, and rows that need more positions decode plainly.
    """
    check_causal(self.model, "the draft model")
    warn_of_draft_heads(self.model)

  @property
  def height(self) -> int:
    return self.max_drafts

  @property
  def breadth(self) -> int:
    return 1

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.DELTA

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> CrossState:
    batch, size = prompt.shape
    capacity = self.space * (size + max_new) + self.length
    capacity = min(capacity, self.model.config.max_position)
    state = CrossState(
      TextBuffer.of_prompt(prompt, length, max_new),
      self.model.allocate(batch, capacity),
      jnp.zeros((batch, capacity), jnp.int32),
    )
    everyone = jnp.ones((batch,), bool)
    return self._follow(params, state, everyone, min(PREFILL_CHUNK, capacity))[0]

  def propose(
    self, params: PyTree, state: CrossState, context: Context
  ) -> tuple[Draft, CrossState]:
    last, rows = context.last, jnp.arange(context.last.shape[0])
    # The prefill emitted a token that was in no update.
    text = state.text.append(last[:, None], (context.step == 1).astype(jnp.int32))
    state = state.replace(text=text)
    chunk = min(_CHUNK, state.held.shape[1])
    state, logits, able, passes = self._follow(params, state, context.active, chunk)
    count = able.astype(jnp.int32)

    def add(place, carry):
      state, drafted, token = carry
      slot = jnp.where(able, state.cache.length, state.held.shape[1])
      held = state.held.at[rows, slot].set(token, mode="drop")
      cache, logits = read(self.model, params[0], state.cache, token[:, None], count)
      token = best_tokens(logits, Rules())[:, 0]
      return state.replace(cache=cache, held=held), drafted.at[:, place].set(token), token

    token = best_tokens(logits, Rules())[:, 0]
    drafted = jnp.zeros((last.shape[0], self.length), jnp.int32).at[:, 0].set(token)
    state, drafted, _ = jax.lax.fori_loop(1, self.length, add, (state, drafted, token))
    shapes = (
      jax.ShapeDtypeStruct((last.shape[0], self.max_drafts), jnp.int32),
      jax.ShapeDtypeStruct((last.shape[0],), jnp.int32),
    )
    to_target = functools.partial(_to_target, max_drafts=self.max_drafts)
    token, known = host.call(to_target, shapes, params[1], text.token, text.length, drafted, able)
    token = jnp.concatenate([last[:, None], token], axis=1)
    tree = chain(self.max_drafts).tree(token, jnp.arange(self.max_drafts + 1) <= known[:, None])
    forwards = jnp.where(able, passes + self.length - 1, 0)
    return Draft(tree, DraftScheme.DELTA, forwards=forwards), state

  def update(self, state: CrossState, round: Round) -> CrossState:
    # The next round finds out what of the drafts came true: the cache may go back then.
    return state.replace(text=state.text.append(round.token, round.num_emitted))

  def _follow(self, params, state, active, chunk):
    """Reads the text; returns the logits after it, the rows that have them, and forward passes."""
    weights, handle = params
    shapes = (
      jax.ShapeDtypeStruct(state.held.shape, jnp.int32),
      jax.ShapeDtypeStruct(state.cache.length.shape, jnp.int32),
      jax.ShapeDtypeStruct(state.cache.length.shape, jnp.int32),
    )
    to_draft = functools.partial(_to_draft, max_new=state.held.shape[1] - self.length)
    arrays = (state.text.token, state.text.length, state.held, state.cache.length, active)
    held, agreed, total = host.call(to_draft, shapes, handle, *arrays)

    def read_on(carry):
      cache, logits, passes = carry
      place = cache.length[:, None] + jnp.arange(chunk)
      token = jnp.take_along_axis(held, place, axis=1, mode="clip")
      count = jnp.clip(total - cache.length, 0, chunk)
      cache, after = read(self.model, weights, cache, token, count)
      return cache, jnp.where((count > 0)[:, None, None], after, logits), passes + (count > 0)

    vocab = self.model.config.vocab_size
    logits = jnp.zeros((*agreed.shape, 1, vocab), jnp.float32)
    carry = (state.cache.replace(length=agreed), logits, jnp.zeros_like(agreed))
    cache, logits, passes = jax.lax.while_loop(
      lambda carry: jnp.any(carry[0].length < total), read_on, carry
    )
    return state.replace(cache=cache, held=held), logits, total > 0, passes


def _to_draft(translator: Translator, text, length, held, held_length, active, *, max_new):
  """Returns rows in draft tokens, numbers in the cache and in all; 0, 0: nothing can be drafted."""
  out = np.array(held)
  agreed, total = np.zeros_like(held_length), np.zeros_like(held_length)
  for row in np.flatnonzero(active):
    cached = held[row, : held_length[row]].tolist()
    ids, same = translator.to_draft(text[row, : length[row]].tolist(), cached)
    if ids is not None and len(ids) <= max_new:
      out[row, : len(ids)] = ids
      agreed[row], total[row] = same, len(ids)
  return out, agreed, total


def _to_target(translator: Translator, text, length, drafted, able, *, max_drafts):
  token = np.zeros((len(length), max_drafts), np.int32)
  count = np.zeros(len(length), np.int32)
  for row in np.flatnonzero(able):
    ids = translator.to_target(text[row, : length[row]].tolist(), drafted[row].tolist())[
      :max_drafts
    ]
    token[row, : len(ids)], count[row] = ids, len(ids)
  return token, count


def check_model(model: Model, tokens: int) -> None:
  """Raises ValueError for a draft model that lacks some of its tokenizer's tokens."""
  size = model.config.vocab_size
  if size < tokens:
    raise ValueError(f"the draft model has vocab_size {size}, its tokenizer {tokens} tokens")
