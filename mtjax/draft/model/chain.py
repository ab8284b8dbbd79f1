"""A small model of the same vocabulary drafts a few tokens, one after the other."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PyTree

from mtjax.cache import KVCache
from mtjax.draft.model.reading import catch_up
from mtjax.draft.model.sampling import sample_draft
from mtjax.draft.protocol import Context, Round, WithDraftModel, draft_keys
from mtjax.draft.text_buffer import TextBuffer
from mtjax.models import Model
from mtjax.rounds.prefill import commit_prompt, read
from mtjax.trees import chain
from mtjax.types import Draft, DraftScheme


class ChainState(struct.PyTreeNode):
  """The draft model's cache, and the text; the cache holds a beginning of the text."""

  cache: KVCache
  text: TextBuffer
  held: Int[Array, " B"]  # number of drafts of this round in the cache, between propose and update


@dataclasses.dataclass(frozen=True)
class ModelChain(WithDraftModel):
  """A chain of up to `length` tokens of the draft model, at the request's temperature and filters.

  Speculative decoding of 2211.17192 and 2302.01318: params are the draft model's. Greedy requests
  draft greedily. A row drafts no further where its most probable token has a probability below
  `confidence` (transformers' assisted generation; 0: always `length` tokens). It is decided before
  the token is sampled, so drafts keep their distribution. The cache takes drafts as they are read
  and forgets what was refused; what it lacks of the text (the last draft, when all were accepted,
  and whatever rounds without this drafter emitted) is read first.
  """

  model: Model
  length: int = 4
  confidence: float = 0.0

  def __post_init__(self):
    if self.length < 1:
      raise ValueError(f"length must be at least 1, got {self.length}")
    if not 0 <= self.confidence <= 1:
      raise ValueError(f"confidence must be between 0 and 1, got {self.confidence}")

  @property
  def height(self) -> int:
    return self.length

  @property
  def breadth(self) -> int:
    return 1

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.WITHOUT_REPLACEMENT

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> ChainState:
    capacity = self._capacity(prompt, max_new)
    cache, _ = commit_prompt(self.model, params, prompt, length, capacity)
    text = TextBuffer.of_prompt(prompt, length, max_new)
    return ChainState(cache, text, jnp.zeros((prompt.shape[0],), jnp.int32))

  def start_unread(
    self, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> ChainState:
    """Returns the state before the model has read the prompts: the first `propose` does."""
    cache = self.model.allocate(prompt.shape[0], self._capacity(prompt, max_new))
    text = TextBuffer.of_prompt(prompt, length, max_new)
    return ChainState(cache, text, jnp.zeros((prompt.shape[0],), jnp.int32))

  def _capacity(self, prompt: Int[Array, "B P"], max_new: int) -> int:
    # Drafts go into the cache before it is known how many are kept.
    return min(prompt.shape[1] + max_new + self.length, self.model.config.max_position)

  def propose(
    self,
    params: PyTree,
    state: ChainState,
    context: Context,
    *,
    limit: Int[Array, ""] | int | None = None,
  ) -> tuple[Draft, ChainState]:
    """Returns what the Protocol says; `limit` is a length up to `length` that may be data."""
    limit = self.length if limit is None else limit
    rules = context.request.rules.without_history
    keys, last = draft_keys(context, self.length), context.last
    greedy = rules.temperature is None

    def draw(logits, place):
      """Returns a token per row, its probs q, and the rows where the model is sure enough."""
      token, q = sample_draft(logits[:, 0], rules, keys[:, place])
      if self.confidence == 0:
        return token, q, True
      probs = jax.nn.softmax(logits[:, 0]) if q is None else q
      return token, q, jnp.max(probs, axis=-1) >= self.confidence

    def add(place, draft, logits, going):
      token, probs, sure = draw(logits, place)
      going &= sure
      tokens, q_rows, count = draft
      tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, place + 1, 1)
      if q_rows is not None:
        probs = jnp.where(going[:, None], probs, 0)
        q_rows = jax.lax.dynamic_update_index_in_dim(q_rows, probs, place, 1)
      return (tokens, q_rows, count + going), going

    def body(carry):
      place, cache, held, reads, draft, going = carry
      before = jax.lax.dynamic_index_in_dim(draft[0], place, 1)
      cache, logits = read(self.model, params, cache, before, going.astype(jnp.int32))
      draft, still = add(place, draft, logits, going)
      return place + 1, cache, held + going, reads + going, draft, still

    def unfinished(carry):
      return (carry[0] < limit) & jnp.any(carry[-1])

    # The prefill emitted a token that was in no update.
    text = state.text.append(last[:, None], (context.step == 1).astype(jnp.int32))
    cache, logits = catch_up(self.model, params, state.cache, text)
    batch, vocab = last.shape[0], logits.shape[-1]
    tokens = jnp.zeros((batch, self.length + 1), jnp.int32).at[:, 0].set(last)
    q_rows = None if greedy else jnp.zeros((batch, self.length + 1, vocab), logits.dtype)
    zero = jnp.zeros((batch,), jnp.int32)
    draft, going = add(0, (tokens, q_rows, zero), logits, context.active)
    carry = (jnp.int32(1), cache, zero, zero + 1, draft, going)
    _, cache, held, reads, (tokens, q_rows, count), _ = jax.lax.while_loop(unfinished, body, carry)
    tree = chain(self.length).tree(tokens, jnp.arange(self.length + 1) <= count[:, None])
    scheme = DraftScheme.DELTA if greedy else self.scheme
    return Draft(tree, scheme, q_rows, forwards=reads), ChainState(cache, text, held)

  def update(self, state: ChainState, round: Round) -> ChainState:
    accepted = round.verdict.count - 1
    refused = state.held - jnp.minimum(accepted, state.held)
    cache = state.cache.replace(length=state.cache.length - refused)
    return ChainState(
      cache, state.text.append(round.token, round.num_emitted), jnp.zeros_like(state.held)
    )
