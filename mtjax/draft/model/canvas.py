"""A masked model drafts several tokens in one pass: those of masks after the text."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.draft.protocol import (
  Context,
  Round,
  WithDraftModel,
  check_sizes,
  draft_keys,
  warn_of_draft_heads,
)
from mtjax.draft.text_buffer import TextBuffer
from mtjax.models import Model
from mtjax.sampling.categorical import sample_categorical
from mtjax.sampling.logits import adjusted, best_tokens, process
from mtjax.sharding.vocabulary import over_vocabulary
from mtjax.trees import chain
from mtjax.types import Draft, DraftScheme, Frontier


class CanvasState(struct.PyTreeNode):
  """The draft model's cache, and the text; the cache holds a beginning of the text."""

  cache: KVCache
  text: TextBuffer


@dataclasses.dataclass(frozen=True)
class ModelCanvas(WithDraftModel):
  """A chain of `length` tokens of a masked diffusion model, all of them from one forward pass.

  `length` masks stand after the text. The model gives each its distribution q_i given the text
  alone, and token i is sampled from q_i independently of the others. So q_i is what token i was
  sampled from, whatever the tokens before it are, and verification by the target is exact
  (SpecDiff 2408.05636). As with `ModelChain`, a row drafts no further than the first place whose
  most probable token has a probability below `confidence`.

  What the mask is, which position an entry predicts, and who sees whom are those of the model's
  config (`mask_id`, `alignment`, `block_length`). The finished blocks of a block-causal model are
  cached exactly, and the unfinished one is computed again. Where all entries see each other, text
  is computed once, as it is emitted, and its keys stay those of that moment (Fast-dLLM's prefix
  cache 2505.22618): drafts are a little worse than those of a pass over the whole text, and no less
  exact.

  Raises ValueError for settings out of range, and for a model that is not masked or has no mask.
  """

  model: Model
  length: int = 4
  confidence: float = 0.0

  def __post_init__(self):
    if self.length < 1:
      raise ValueError(f"length must be at least 1, got {self.length}")
    if not 0 <= self.confidence <= 1:
      raise ValueError(f"confidence must be between 0 and 1, got {self.confidence}")
    config = self.model.config
    if config.predicts != "masked":
      raise ValueError(
        f"the draft model predicts {config.predicts!r}, but a canvas needs a masked model "
        "(predicts='masked'): use ModelChain for a causal one"
      )
    _ = self.mask_id

  @property
  def mask_id(self) -> int:
    """The id of the mask among the model's inputs."""
    return self.model.config.special_id("mask")

  @property
  def height(self) -> int:
    return self.length

  @property
  def breadth(self) -> int:
    return 1

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.WITHOUT_REPLACEMENT

  def check(self, target: Model) -> None:
    check_sizes(self.model, target)
    warn_of_draft_heads(self.model)

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> CanvasState:
    batch, size = prompt.shape
    cache = self.model.allocate(batch, min(size + max_new, self.model.config.max_position))
    text = TextBuffer.of_prompt(prompt, length, max_new)
    return CanvasState(self._read(params, cache, text, size), text)

  def propose(
    self, params: PyTree, state: CanvasState, context: Context
  ) -> tuple[Draft, CanvasState]:
    rules = context.request.rules.without_history
    # The prefill emitted a token that was in no update.
    text = state.text.append(context.last[:, None], (context.step == 1).astype(jnp.int32))
    cache = self._caught_up(params, state.cache, text)
    frontier = self._frontier(cache, text, self._max_rest + self.length, masks=self.length)
    rest = text.length - cache.length
    rows = rest[:, None] + jnp.arange(self.length) - (self.model.config.alignment == "shifted")
    output = self.model.forward(params, frontier, cache, rows)
    every = jnp.broadcast_to(jnp.arange(frontier.size), frontier.token.shape)
    cache = cache.commit(output.kv, frontier.position, every, self._final(cache, text.length))
    logits = output.logits
    logits = jnp.where(jnp.arange(logits.shape[-1]) == self.mask_id, -jnp.inf, logits)
    greedy = rules.temperature is None
    processed = adjusted(logits, rules) if greedy else process(logits, rules)
    probs = jax.nn.softmax(processed, axis=-1)
    if greedy:
      token = best_tokens(logits, rules)
    else:
      keys = draft_keys(context, self.length)
      token = over_vocabulary(
        jax.vmap(jax.vmap(sample_categorical)), processed, keys, roles=("b.v", "b"), out="b"
      )
    sure = jnp.cumprod(jnp.max(probs, axis=-1) >= self.confidence, axis=1)
    offered = context.active[:, None] & (sure > 0)
    tokens = jnp.concatenate([context.last[:, None], token], axis=1)
    root = jnp.ones_like(offered[:, :1])
    tree = chain(self.length).tree(tokens, jnp.concatenate([root, offered], axis=1))
    q = jnp.pad(jnp.where(offered[:, :, None], probs, 0), ((0, 0), (0, 1), (0, 0)))
    reads = context.active.astype(jnp.int32)
    scheme = DraftScheme.DELTA if greedy else self.scheme
    return Draft(tree, scheme, None if greedy else q, forwards=reads), CanvasState(cache, text)

  def update(self, state: CanvasState, round: Round) -> CanvasState:
    return state.replace(text=state.text.append(round.token, round.num_emitted))

  @property
  def _max_rest(self) -> int:
    """The largest number of tokens that the cache lacks from one round to the next."""
    return self.length + 1 + max(self.model.config.block_length - 1, 0)

  def _final(self, cache: KVCache, length: Int[Array, " B"]) -> Int[Array, " B"]:
    """Returns how many tokens of a text of this length may follow the cache: finished blocks."""
    if self.model.config.block_length:
      length = length // self.model.config.block_length * self.model.config.block_length
    return length - cache.length

  def _caught_up(self, params: PyTree, cache: KVCache, text: TextBuffer) -> KVCache:
    """Returns the cache after what rounds without this drafter emitted."""
    return jax.lax.while_loop(
      lambda cache: jnp.any(text.length - cache.length > self._max_rest),
      lambda cache: self._read(params, cache, text, self._max_rest),
      cache,
    )

  def _read(self, params: PyTree, cache: KVCache, text: TextBuffer, size: int) -> KVCache:
    """Commits what is final of the next `size` tokens of the text."""
    frontier = self._frontier(cache, text, size)
    none = jnp.zeros((frontier.token.shape[0], 0), jnp.int32)
    output = self.model.forward(params, frontier, cache, none)
    every = jnp.broadcast_to(jnp.arange(size), frontier.token.shape)
    # The last token stays, because a shifted model's logits after it are those of the first mask.
    end = jnp.minimum(text.length - 1, cache.length + size)
    count = jnp.maximum(self._final(cache, end), 0)
    return cache.commit(output.kv, frontier.position, every, count)

  def _frontier(self, cache: KVCache, text: TextBuffer, size: int, masks: int = 0) -> Frontier:
    """Returns `size` entries after the cache: the rest of the text, and then the masks."""
    position = cache.length[:, None] + jnp.arange(size)
    known: Bool[Array, "B T"] = position < text.length[:, None]
    token = jnp.take_along_axis(text.token, position, axis=1, mode="clip")
    token = jnp.where(known, token, self.mask_id)
    block = (
      position // self.model.config.block_length
      if self.model.config.block_length
      else (~known).astype(jnp.int32)
    )
    frontier = frontier_lib.block_causal(token, block)
    valid = position < text.length[:, None] + masks
    hi = jnp.where(valid[:, None, :], frontier.hi, frontier.lo)
    position = jnp.minimum(position, self.model.config.max_position - 1)
    return frontier.replace(position=position, hi=hi)
