"""What the rules of a denoising loop see in one pass, and how their decisions are written."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from mtjax.diffusion.moves import moved, sources
from mtjax.display.short import short_repr
from mtjax.sampling.logits import History, Rules, adjusted, process


class View(struct.PyTreeNode):
  """One pass over a canvas, as order, transfer and revision rules see it.

  `open` is a subset of `masked`, and `decided` has no position of it. Both are empty in a row that
  has ended. No rule reads anything of another row.

  `t` and `s` are masking rates, 1 - alpha: the share of masked tokens before and after this pass,
  which is also the time of the linear schedule. Rules that do not name them do not read them.
  """

  logits: Float[Array, "B L V"]  # processed: what tokens are sampled from; -inf at the mask id
  scored: Float[Array, "B L V"]  # what confidences are computed from; -inf at the mask id
  token: Int[Array, "B L"]
  position: Int[Array, "B L"]  # in the whole text: noise depends on it, not on the window's index
  masked: Bool[Array, "B L"]
  open: Bool[Array, "B L"]  # masked positions that may be decided in this pass
  decided: Bool[Array, "B L"]  # positions of the block that earlier passes decided: revisable
  total: Int[Array, " B"]  # number of positions of the block that were masked when it began
  step: Int[Array, " B"]  # number of passes made in the block before this one
  steps: Int[Array, " B"]  # number of passes planned for the block
  t: Float[Array, " B"]
  s: Float[Array, " B"]
  passes: Int[Array, " B"]  # number of passes of the row before this one, over all blocks
  key: Key[Array, " B"]
  shadow: Float[Array, "B L V"] | None = None  # `scored` of shadow entries (WINO); None: none
  # Largest change of each distribution in the last passes, in nats (KLASS); None: not measured.
  drift: Float[Array, "B L"] | None = None
  # The argmax of `logits`, where every row is greedy and needs no sample; None: tokens are sampled.
  best: Int[Array, "B L"] | None = None
  # Numbers in place of random ones, by `Stream`: `mtjax.evaluate.denoising` tries all of them.
  noise: Mapping[int, Array] | None = None

  __repr__ = short_repr

  @property
  def num_open(self) -> Int[Array, " B"]:
    """The number of open positions per row."""
    return jnp.sum(self.open, axis=1, dtype=jnp.int32)

  @property
  def offset(self) -> Int[Array, "B L"]:
    """The distance of every position from the first one of the block that may change or did."""
    own = jnp.where(self.open | self.decided, self.position, jnp.iinfo(jnp.int32).max)
    return jnp.maximum(0, self.position - jnp.min(own, axis=1, keepdims=True))

  @property
  def last(self) -> Bool[Array, " B"]:
    """True in rows whose planned passes end with this one."""
    return self.step >= self.steps - 1


class Revision(struct.PyTreeNode):
  """The decisions of one pass. The sets of positions are disjoint."""

  written: Bool[Array, "B L"]  # masked positions that get their candidate
  remasked: Bool[Array, "B L"]  # decided positions that are masked again
  edited: Bool[Array, "B L"]  # decided positions whose token becomes their candidate
  more: Bool[Array, " B"]  # rows whose block needs another pass even if nothing is masked
  # What moves others, after all of the above (`moves.sources`); both None: nothing moves.
  deleted: Bool[Array, "B L"] | None = None  # decided positions that leave
  inserted: Bool[Array, "B L"] | None = None  # decided positions before which a mask is put

  __repr__ = short_repr

  @property
  def sampled(self) -> Bool[Array, "B L"]:
    """The positions whose candidate was followed: as a token, or as what to do with the token."""
    followed = self.written | self.edited
    if self.deleted is None or self.inserted is None:
      return followed
    return followed | self.deleted | self.inserted

  def move(self, values: Shaped[Array, "B L"], fill: int | bool) -> Shaped[Array, "B L"]:
    """Returns what each position has after the moves; new masks have `fill`."""
    if self.deleted is None or self.inserted is None:
      return values
    return moved(values, sources(self.deleted, self.inserted), fill)


def apply_revision(
  view: View, candidate: Int[Array, "B L"], revision: Revision, mask_id: int
) -> tuple[Int[Array, "B L"], Bool[Array, "B L"]]:
  """Returns the tokens after a pass, and which positions are masked."""
  token = jnp.where(revision.written | revision.edited, candidate, view.token)
  token = jnp.where(revision.remasked, mask_id, token)
  masked = (view.masked & ~revision.written) | revision.remasked
  return revision.move(token, mask_id), revision.move(masked, True)


def suppress_mask(logits: Float[Array, "*N V"], mask_id: int) -> Float[Array, "*N V"]:
  """Returns logits with -inf at the mask id, which no position may become.

  LLaDA's published code lacks this, so an untrained model finishes texts with masks in them; MDLM,
  MD4 and GIDD have it.
  """
  return jnp.where(jnp.arange(logits.shape[-1]) == mask_id, -jnp.inf, logits)


def score_by_model(
  logits: Float[Array, "B L V"], rules: Rules, history: History | None = None
) -> Float[Array, "B L V"]:
  """Returns the logits of confidences as LLaDA has them: temperature 1, no filters."""
  return adjusted(logits, rules, history)


def score_filtered(
  logits: Float[Array, "B L V"], rules: Rules, history: History | None = None
) -> Float[Array, "B L V"]:
  """Returns the logits of confidences as Dream has them: those that tokens are sampled from.

  Dream divides by the temperature only where it is positive, so the confidences of a greedy row are
  those of temperature 1 after its filters, and not the ones of its one-hot choice.
  """
  if rules.temperature is None:
    warm = jnp.ones(logits.shape[0], jnp.float32)
  else:
    warm = jnp.where(rules.temperature > 0, rules.temperature, 1.0)
  return process(logits, rules.replace(temperature=warm), history)
