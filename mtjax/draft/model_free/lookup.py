"""Prompt lookup: what followed the last few tokens when they stood in the text before."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from mtjax.draft.protocol import Context, ForAnyTarget, Round
from mtjax.draft.text_buffer import TextBuffer
from mtjax.trees import merge
from mtjax.types import Draft, DraftScheme

# Share of copied tokens that were accepted after 1, 2, 3 and at least 4 tokens that are repeated:
# rounded, for greedy answers of SmolLM2 to public prompts. At temperature 0.7 it is up to 0.1 less.
_ACCEPTED = (0.25, 0.6, 0.75, 0.9)


@dataclasses.dataclass(frozen=True)
class PromptLookup(ForAnyTarget):
  """A drafter that copies `length` tokens from behind earlier places that end as the text ends now.

  A place is as good as the number of last tokens it repeats, at most `max_ngram` and at least
  `min_ngram`; the latest of equals comes first. The `branches` best places make one tree, with
  common beginnings shared (apoorvumang/prompt-lookup-decoding, several branches as in
  2312.12728). A copy that reaches the end of the text goes on with what it has copied, as in LZ77:
  a text that repeats itself every few tokens is drafted as one that goes on repeating itself.
  Nothing is learned and no model runs: O(text x max_ngram) comparisons per round, in the graph.

  By default a pass has 8 entries: the last token of the text and 7 drafts after it.
  """

  length: int = 7
  branches: int = 1
  max_ngram: int = 4
  min_ngram: int = 1

  def __post_init__(self):
    for name in ("length", "branches", "min_ngram"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
    if self.max_ngram < self.min_ngram:
      raise ValueError(
        f"max_ngram ({self.max_ngram}) must be at least min_ngram ({self.min_ngram})"
      )

  @property
  def height(self) -> int:
    return self.length

  @property
  def breadth(self) -> int:
    return self.branches

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.DELTA

  @property
  def estimates_survival(self) -> bool:
    return True

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> TextBuffer:
    # The first token is emitted before the first round: it is not in this text yet.
    return TextBuffer.of_prompt(prompt, length, max_new)

  def propose(
    self, params: PyTree, state: TextBuffer, context: Context
  ) -> tuple[Draft, TextBuffer]:
    # Everything emitted is there, except the one token of the prefill.
    text = state.append(context.last[:, None], (context.step == 1).astype(jnp.int32))
    return self.after(text), text

  def after(self, text: TextBuffer) -> Draft:
    """Returns what is drafted behind each text, which follows from the text alone."""
    place, repeats = self._places(text)
    is_place = repeats >= self.min_ngram
    # Behind the end of the text stands the copy itself, so the source has this period.
    period = jnp.maximum(text.length[:, None] - place, 1)[:, :, None]
    source = place[:, :, None] + jnp.arange(self.length) % period
    rows = jnp.arange(place.shape[0])[:, None, None]
    inside = jnp.broadcast_to(is_place[:, :, None], source.shape)
    last = jnp.take_along_axis(text.token, text.length[:, None] - 1, axis=1)[:, 0]
    tree = merge(last, text.token[rows, source], inside)
    return Draft(tree, DraftScheme.DELTA, survival=self._survival(repeats))

  def update(self, state: TextBuffer, round: Round) -> TextBuffer:
    return state.append(round.token, round.num_emitted)

  def _survival(self, repeats: Int[Array, "B K"]) -> Float[Array, "B N"]:
    """Returns the estimate of each node: every accepted token makes the repeat one token longer."""
    repeated = repeats[:, :, None] + jnp.arange(self.length)
    share = jnp.array(_ACCEPTED)[jnp.clip(repeated, 1, len(_ACCEPTED)) - 1]
    nodes = jnp.cumprod(share, axis=2).reshape(len(repeats), -1)
    return jnp.pad(nodes, ((0, 0), (1, 0)), constant_values=1.0)

  def _places(self, text: TextBuffer) -> tuple[Int[Array, "B K"], Int[Array, "B K"]]:
    """Returns starts of continuations, best first, and how many tokens repeat before each.

    The number is 0 where there is no such place.
    """
    size = text.token.shape[1]
    start = jnp.arange(size)
    repeated = jnp.zeros(text.token.shape, jnp.int32)
    equal = jnp.ones(text.token.shape, bool)
    for back in range(1, self.max_ngram + 1):
      at_end = jnp.take_along_axis(text.token, jnp.maximum(text.length - back, 0)[:, None], axis=1)
      equal &= (jnp.roll(text.token, back, axis=1) == at_end) & (start >= back)
      repeated += equal
    score = jnp.where(start < text.length[:, None], repeated * size + start, -1)
    places = []
    for _ in range(self.branches):  # a few passes over a short row beat sorting it
      best = jnp.argmax(score, axis=1)
      places.append(
        (best, jnp.take_along_axis(repeated, best[:, None], axis=1)[:, 0], score.max(1))
      )
      score = jnp.where(start == best[:, None], -1, score)
    place, repeats, value = (jnp.stack(x, axis=1) for x in zip(*places, strict=True))
    return place, jnp.where(value >= 0, repeats, 0)
