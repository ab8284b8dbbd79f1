"""Early exit: each draft leaves the model after the first layers that are sure of it."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.draft.model.sampling import sample_draft
from mtjax.draft.protocol import Context, WithDraftModel, draft_keys
from mtjax.models import Model
from mtjax.trees import chain
from mtjax.types import Draft, DraftScheme

# (what is kept, number of the group of layers, rows that need it) -> (kept, logits of those rows).
RunGroup = Callable[[Any, int, Bool[Array, " B"]], tuple[Any, Float[Array, "B V"]]]


@dataclasses.dataclass(frozen=True)
class EarlyExit(WithDraftModel):
  """A chain of up to `length` tokens, each sampled after the first layers that are sure of it.

  Sorted speculative decoding (2407.01955). Layers run in groups that end at `exits`, numbers of
  layers; () takes those that the model was trained with. After a group the final norm and head
  give probabilities: if the largest probability (of the model's own softmax, before temperature and
  filters) is at least that exit's threshold, the token is sampled there; else the next group goes
  on. Below the last threshold a row drafts no further. () stands for 0.5 at every exit but the
  last, and `at_the_last` there.

  The exit is chosen before the token is sampled, so the `q` of a draft is that of its exit. Rows of
  a batch leave each for itself: a group runs while any row needs it, for those rows alone. Raises
  ValueError for exits and thresholds that make no sense.
  """

  at_the_last: ClassVar[float] = 0.0

  model: Model
  exits: tuple[int, ...] = ()
  thresholds: tuple[float, ...] = ()
  length: int = 4

  def __post_init__(self):
    exits = tuple(self.exits) or self.model.config.exits
    if not exits:
      raise ValueError(
        "the model was not trained with exits: give the numbers of layers after which it may be "
        "left, as exits=(2, 4)"
      )
    thresholds = tuple(self.thresholds) or (0.5,) * (len(exits) - 1) + (self.at_the_last,)
    object.__setattr__(self, "exits", exits)
    object.__setattr__(self, "thresholds", thresholds)
    layers = len(self.model.config.layers)
    if exits != tuple(sorted(set(exits))) or not 1 <= exits[0] <= exits[-1] <= layers:
      raise ValueError(f"exits are rising numbers of layers, 1 to {layers}; got {exits}")
    if len(thresholds) != len(exits):
      raise ValueError(f"{len(thresholds)} thresholds for {len(exits)} exits: give one per exit")
    for threshold in thresholds:
      if not 0 <= threshold <= 1:
        raise ValueError(f"thresholds are probabilities, from 0 to 1; got {threshold}")
    if self.length < 1:
      raise ValueError(f"length must be at least 1, got {self.length}")

  @property
  def height(self) -> int:
    return self.length

  @property
  def breadth(self) -> int:
    return 1

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.WITHOUT_REPLACEMENT

  @property
  def groups(self) -> tuple[tuple[int, int], ...]:
    """Returns the (first, last) layers of every group."""
    return tuple(zip((0, *self.exits[:-1]), self.exits, strict=True))

  def draft(
    self,
    context: Context,
    kept: Any,
    read: Callable[[Any, Int[Array, "B N"], Int[Array, ""]], tuple[Any, RunGroup]],
  ) -> tuple[Draft, Any, Int[Array, " E"]]:
    """Returns the chain, the state that `read` keeps, and the number of drafts of each exit.

    `read(kept, tokens, place)` prepares for the token after tokens[:, place], whose first one is
    the root: it returns the new state and the function that runs a group.
    """
    rules = context.request.rules.without_history
    keys, greedy = draft_keys(context, self.length), rules.temperature is None
    batch, size = context.last.shape[0], self.length + 1

    def body(carry):
      place, kept, tokens, q_rows, count, left, reads, going = carry
      kept, logits, exit_, sure = self._leave(*read(kept, tokens, place), going)
      token, probs = sample_draft(logits, rules, keys[:, place])
      tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, place + 1, 1)
      if probs is not None:
        probs = jnp.where(sure[:, None], probs, 0)
        q_rows = jax.lax.dynamic_update_index_in_dim(q_rows, probs, place, 1)
      is_sampled = sure[:, None] & (exit_[:, None] == jnp.arange(len(self.exits)))
      left += jnp.sum(is_sampled, axis=0)
      return place + 1, kept, tokens, q_rows, count + sure, left, reads + going, sure

    def unfinished(carry):
      return (carry[0] < self.length) & jnp.any(carry[-1])

    tokens = jnp.zeros((batch, size), jnp.int32).at[:, 0].set(context.last)
    q_rows = None if greedy else jnp.zeros((batch, size, self.model.config.vocab_size))
    zero, left = jnp.zeros((batch,), jnp.int32), jnp.zeros((len(self.exits),), jnp.int32)
    start = (jnp.int32(0), kept, tokens, q_rows, zero, left, zero, context.active)
    _, kept, tokens, q_rows, count, left, reads, _ = jax.lax.while_loop(unfinished, body, start)
    tree = chain(self.length).tree(tokens, jnp.arange(size) <= count[:, None])
    scheme = DraftScheme.DELTA if greedy else self.scheme
    return Draft(tree, scheme, q_rows, forwards=reads), kept, left

  def _leave(self, kept, run: RunGroup, going):
    """Runs groups until every `going` row has left; returns logits, exits and sure rows."""
    within, chosen, exit_ = going, None, jnp.zeros(going.shape, jnp.int32)
    for group, threshold in enumerate(self.thresholds):
      kept, logits = run(kept, group, within)
      chosen = logits if chosen is None else jnp.where(within[:, None], logits, chosen)
      exit_ = jnp.where(within, group, exit_)
      within &= jnp.max(jax.nn.softmax(logits), axis=-1) < threshold
    return kept, chosen, exit_, going & ~within
