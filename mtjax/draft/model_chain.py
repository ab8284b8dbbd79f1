"""A small model of the same vocabulary drafts a few tokens, one after the other."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.draft.protocol import draft_keys
from mtjax.models import Model
from mtjax.prefill import commit_prompt
from mtjax.sampling import process
from mtjax.trees import chain
from mtjax.types import Draft, DraftLaw


@struct.dataclass
class ChainState:
  """The draft model's own cache; what it lacks of the text is in `ahead`."""

  cache: KVCache
  ahead: Int[Array, "B 2"]  # the text's last tokens, `missing` of which the cache lacks
  missing: Int[Array, " B"]  # 1, or 2 after a round that accepted every draft


@dataclasses.dataclass(frozen=True)
class ModelChain:
  """`length` tokens of the draft model's own law, at the request's temperature and filters.

  Speculative decoding of 2211.17192 and 2302.01318: params are the draft model's. Greedy requests
  draft greedily. The cache takes drafts as they are made and forgets what was refused; after full
  acceptance it has not seen its own last draft, which is then read together with the new token.
  """

  model: Model
  length: int = 4

  def __post_init__(self):
    if self.length < 1:
      raise ValueError(f"length must be at least 1, got {self.length}")

  @property
  def height(self) -> int:
    return self.length

  @property
  def breadth(self) -> int:
    return 1

  @property
  def forwards(self) -> int:
    return self.length

  def start(self, params, prompt, length, *, room):
    # Drafts go into the cache before it is known how many are kept.
    capacity = min(prompt.shape[1] + room + self.length, self.model.config.max_position)
    cache, _ = commit_prompt(self.model, params, prompt, length, capacity)
    batch = prompt.shape[0]
    return ChainState(cache, jnp.zeros((batch, 2), jnp.int32), jnp.ones((batch,), jnp.int32))

  def propose(self, params, state, request, last, step):
    rules = request.rules.replace(repetition_penalty=None, presence_penalty=None)
    keys = draft_keys(request, step)
    greedy = rules.temperature is None
    one = jnp.ones_like(last)

    def draw(logits, place):
      law = process(logits, rules)[:, 0]
      if greedy:
        return jnp.argmax(law, axis=-1).astype(jnp.int32), None
      noise = jax.vmap(
        lambda key: jax.random.gumbel(jax.random.fold_in(key, place), law.shape[1:], mode="high")
      )(keys)
      return jnp.argmax(law + noise, axis=-1).astype(jnp.int32), jax.nn.softmax(law, axis=-1)

    # The first round comes after the prefill, which emitted a token that this model has not seen.
    ahead = jnp.where((state.missing == 2)[:, None], state.ahead, last[:, None])
    cache, logits = self._read(params, state.cache, ahead, state.missing)
    token, q = draw(logits, 0)
    tokens, laws = [last, token], [q]
    for place in range(1, self.length):
      cache, logits = self._read(params, cache, token[:, None], one)
      token, q = draw(logits, place)
      tokens.append(token)
      laws.append(q)
    tree = chain(self.length).tree(jnp.stack(tokens, axis=1))
    state = state.replace(cache=cache)
    if greedy:
      return Draft(tree, DraftLaw.DELTA), state
    # Nothing hangs off the last draft.
    laws.append(jnp.zeros_like(laws[0]))
    return Draft(tree, DraftLaw.WITHOUT_REPLACEMENT, jnp.stack(laws, axis=1)), state

  def update(self, state, tree, verdict, token, taken):
    accepted = verdict.count - 1
    # In the cache now: the text up to the root, and all drafts but the last one.
    before = state.cache.length - (self.length - 1)
    kept = before + jnp.minimum(accepted, self.length - 1)
    # A row that has ended stays as it was before this round.
    length = jnp.where(taken > 0, kept, before - state.missing)
    every = accepted == self.length
    last_draft = jnp.where(every, tree.token[:, -1], verdict.token)
    return ChainState(
      cache=state.cache.replace(length=length),
      ahead=jnp.stack([last_draft, verdict.token], axis=1),
      missing=jnp.where(taken > 0, 1 + every, state.missing).astype(jnp.int32),
    )

  def _read(self, params, cache, token, count):
    """Commits token[b, :count[b]] and gives the logits after the last of them."""
    frontier = frontier_lib.causal(token, start=cache.length, length=count)
    output = self.model.forward(params, frontier, cache, (count - 1)[:, None])
    path = jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
    return cache.commit(output.kv, frontier.position, path, count), output.logits
