"""A small model drafts a tree that grows where the tokens sampled so far make it worth while."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from mtjax.draft.model.tree_state import TreeState, processed_logits, warm_rows
from mtjax.draft.protocol import Context, Round, WithDraftModel, draft_keys
from mtjax.models import Model
from mtjax.trees.growth import Growth, shares
from mtjax.trees.siblings import siblings, top_k_siblings
from mtjax.types import Draft, DraftScheme


@dataclasses.dataclass(frozen=True)
class GrownTree(WithDraftModel):
  """A tree of DySpec (2410.11744): `size` drafts, each where its expected acceptance is largest.

  Siblings are sampled without replacement from the draft model, at the request's temperature
  and filters; `mtjax.trees.growth` says where the next one goes. `step` drafts are added per pass
  of the draft model, below nodes that it has read: 1 is the paper's algorithm, more is cheaper.
  Greedy requests take the most probable tokens instead of samples.

  Lossless with verifiers for drafts without replacement: where the tree grows depends on
  tokens already sampled, a draft is sampled from the rest of q given them, and none is dropped or
  moved afterwards. The loop leaves out what is deeper than a row may emit, which is harmless: it
  takes all children of a node or none, whatever was sampled, so the samples below only stood for
  randomness that is not verified. Dropping the worst nodes would not be.

  Raises ValueError for a size, depth, breadth or step below 1 and a breadth above the vocabulary.
  """

  model: Model
  size: int = 12
  depth: int = 6
  children: int = 4
  step: int = 3

  def __post_init__(self):
    for name in ("size", "depth", "children", "step"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
    if self.children > self.model.config.vocab_size:
      raise ValueError(
        f"children ({self.children}) must be at most the vocabulary, "
        f"{self.model.config.vocab_size} tokens"
      )

  @property
  def height(self) -> int:
    return min(self.depth, self.size)

  @property
  def breadth(self) -> int:
    return self.children

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.WITHOUT_REPLACEMENT

  @property
  def _reads(self) -> int:
    """Number of drafts that are read: all but those of the last step."""
    return (self.size - 1) // self.step * self.step

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> TreeState:
    return TreeState.start(
      self.model, params, prompt, length, max_new=max_new, nodes=self.size + 1, reads=self._reads
    )

  def propose(self, params: PyTree, state: TreeState, context: Context) -> tuple[Draft, TreeState]:
    request = context.request
    greedy = request.rules.temperature is None
    warm = warm_rows(request)
    keys = None if greedy else draft_keys(context, self.size + 1)
    batch = context.last.shape[0]

    def open_slots(growth, node, logits):
      logits = processed_logits(logits, request)
      q = jax.nn.softmax(logits, axis=-1)
      if greedy:
        token, valid = top_k_siblings(logits, self.children)
      else:
        count = (self.children,) * logits.shape[1]
        token, valid = siblings(self.scheme, logits, q, count, keys[:, node], warm)
      share = shares(jnp.take_along_axis(q, token, axis=-1), valid)
      opened = jax.vmap(lambda growth, *new: growth.open(node, *new, self.height))
      return opened(growth, token, share), q

    state, logits = state.catch_up(self.model, params, context)
    growth = jax.vmap(lambda root: Growth.plant(root, self.size + 1, self.children))(context.last)
    known, q_rows, reading = 0, [], state.reading
    for begin in range(1, self.size + 1, self.step):  # as many passes as there are steps
      if begin > 1:
        drafts = slice(1, begin)
        output, position = state.read(
          self.model,
          params,
          growth.token[:, drafts],
          growth.parent[:, drafts] - 1,
          self.step,
          growth.valid[:, drafts],
        )
        logits = output.logits
        reading = reading.replace(kv=output.kv, position=position)
      growth, q = open_slots(growth, known, logits)
      q_rows.append(q)
      known = begin
      end = min(begin + self.step, self.size + 1)
      growth = jax.vmap(lambda one, begin=begin, end=end: one.add_all(begin, end))(growth)
    node = jnp.arange(self.size + 1)
    entry = jnp.where(node <= self._reads, node - 1, -1)
    kv = jax.tree.map(lambda old, new: new.astype(old.dtype), state.reading.kv, reading.kv)
    entry = jnp.broadcast_to(entry, (batch, self.size + 1)).astype(jnp.int32)
    reading = reading.replace(kv=kv, entry=entry)
    q = None
    if not greedy:
      q = jnp.concatenate(q_rows, axis=1)
      q = jnp.pad(q, ((0, 0), (0, self.size + 1 - q.shape[1]), (0, 0)))
    scheme = DraftScheme.DELTA if greedy else self.scheme
    forwards = jnp.full((batch,), len(q_rows), jnp.int32)
    draft = Draft(growth.tree(self.height), scheme, q, forwards=forwards)
    return draft, state.replace(reading=reading)

  def update(self, state: TreeState, round: Round) -> TreeState:
    return state.update(round)
