"""A small model drafts the tree of its own most probable paths, a new one in every round."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.draft.model.tree_state import TreeState
from mtjax.draft.protocol import Context, Round, WithDraftModel
from mtjax.models import Model
from mtjax.trees.best_first import Candidates
from mtjax.types import Draft, DraftScheme, LayerKV


@dataclasses.dataclass(frozen=True)
class BestFirst(WithDraftModel):
  """A tree of the `size` drafts of largest cumulated probability (EAGLE-2, 2406.16858, sec. 4).

  Each of `depth` levels tries the `width` most probable tokens after each of the `width` best nodes
  of the level above, with one pass of the draft model; the best of all levels together are the
  tree. A row goes no deeper once a level has added no more than `threshold` to the expected number
  of accepted drafts, which is the sum of the `size` best probabilities (OPT-Tree, 2406.17276; there
  it is the cost of a draft pass in target passes, here 0 stops only where nothing is won). Draft
  probabilities are those of temperature 1 for every request: drafts are chosen, not sampled
  (DELTA).

  Raises ValueError for sizes below 1, a width above the vocabulary, a size above the number of
  candidates, and a negative threshold.
  """

  model: Model
  width: int = 3
  depth: int = 4
  size: int = 12
  threshold: float = 0.1

  def __post_init__(self):
    for name in ("width", "depth", "size"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
    if self.width > self.model.config.vocab_size:
      raise ValueError(
        f"width ({self.width}) must be at most the vocabulary, "
        f"{self.model.config.vocab_size} tokens"
      )
    candidates = self.width + (self.depth - 1) * self.width**2
    if self.size > candidates:
      raise ValueError(
        f"size ({self.size}) must be at most width + (depth - 1) width**2 = {candidates}"
      )
    if not self.threshold >= 0:
      raise ValueError(f"threshold must be at least 0, got {self.threshold}")

  @property
  def height(self) -> int:
    return self.depth

  @property
  def breadth(self) -> int:
    return self.width

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.DELTA

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> TreeState:
    reads = (self.depth - 1) * self.width
    return TreeState.start(
      self.model, params, prompt, length, max_new=max_new, nodes=self.size + 1, reads=reads
    )

  def propose(self, params: PyTree, state: TreeState, context: Context) -> tuple[Draft, TreeState]:
    bias = context.request.rules.logit_bias

    def add(depth, search, logits):
      logp = jax.nn.log_softmax(logits if bias is None else logits + bias[:, None], axis=-1)
      logp = jnp.where(search.going[:, None, None], logp, -jnp.inf)
      candidates = search.candidates.add(depth, logp)
      score, number = candidates.best(self.size)
      expected = jnp.sum(jnp.exp(score), axis=1)
      return search._replace(
        candidates=candidates,
        score=score,
        number=number,
        expected=expected,
        going=search.going & (expected - search.expected > self.threshold),
        forwards=search.forwards + search.going,
      )

    def deepen(depth, search):
      """Reads the levels so far; grows with the depth, so each has a program of its own."""
      levels = [search.candidates.entries(above) for above in range(depth)]
      token, place, valid = (jnp.concatenate(x, axis=1) for x in zip(*levels, strict=True))
      before = jnp.arange(-1, depth - 1).repeat(self.width) * self.width
      parent = jnp.where(before < 0, -1, before + place)
      output, _ = state.read(self.model, params, token, parent, self.width, valid)

      def put(old, new):
        return old.at[:, :, : new.shape[2]].set(new.astype(old.dtype))

      kv = jax.tree.map(put, search.kv, output.kv)
      return add(depth, search._replace(kv=kv, levels=jnp.int32(depth)), output.logits)

    state, logits = state.catch_up(self.model, params, context)
    batch = context.last.shape[0]
    zero = jnp.zeros((batch,), jnp.int32)
    nothing = jnp.zeros((batch, self.size))
    search = _Search(
      candidates=Candidates.none(batch, self.depth, self.width),
      score=nothing,
      number=nothing.astype(jnp.int32),
      expected=nothing[:, 0],
      going=context.active,
      forwards=zero,
      kv=state.reading.kv,
      levels=jnp.int32(0),
    )
    search = add(0, search, logits)
    for depth in range(1, self.depth):
      search = jax.lax.cond(
        jnp.any(search.going),
        lambda search, depth=depth: deepen(depth, search),
        lambda search: search,
        search,
      )
    candidates = search.candidates
    tree, number = candidates.tree(context.last, search.score, search.number)
    entry = jnp.concatenate([zero[:, None] - 1, candidates.entry_of(number, search.levels)], axis=1)
    slots = jnp.arange(state.reading.position.shape[1])
    reading = state.reading.replace(
      kv=search.kv, position=state.cache.length[:, None] + slots // self.width, entry=entry
    )
    return Draft(tree, self.scheme, forwards=search.forwards), state.replace(reading=reading)

  def update(self, state: TreeState, round: Round) -> TreeState:
    return state.update(round)


class _Search(NamedTuple):
  candidates: Candidates
  score: Float[Array, "B S"]  # the best candidates so far
  number: Int[Array, "B S"]
  expected: Float[Array, " B"]  # sum of draft probabilities: accepted drafts to expect
  going: Bool[Array, " B"]  # rows that go deeper
  forwards: Int[Array, " B"]
  kv: tuple[LayerKV, ...]
  levels: Int[Array, ""]  # number of levels read
