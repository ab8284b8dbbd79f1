"""Toys in place of networks: a table of the distribution at every position of every canvas.

A canvas of L positions is numbered by its tokens as digits of base V + 1, the first position the
most significant; V is the mask. Texts are numbered alike in base V.
"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Conditionals:
  """What a network predicts at every position of every canvas.

  At a position that is not masked, a network may see its own token; `shadow` is the prediction
  where it does not.
  """

  probs: Float[np.ndarray, "canvases L V"]

  def __post_init__(self) -> None:
    count, length, vocab = self.probs.shape
    if count != (vocab + 1) ** length:
      raise ValueError(
        f"{length} positions of {vocab} tokens have {(vocab + 1) ** length} canvases: got {count}"
      )
    if not np.allclose(self.probs.sum(axis=-1), 1.0, atol=1e-6):
      raise ValueError("probabilities at a position must have the sum 1")

  @property
  def length(self) -> int:
    """The number of positions, L."""
    return self.probs.shape[1]

  @property
  def vocab(self) -> int:
    """The number of tokens, V, which is also the id of the mask."""
    return self.probs.shape[2]

  @property
  def shadow(self) -> Float[np.ndarray, "canvases L V"]:
    """The predictions at every position where a mask is put there."""
    tokens = canvases(self.length, self.vocab)
    weight = (self.vocab + 1) ** np.arange(self.length)[::-1]
    masked_here = np.arange(len(tokens))[:, None] + (self.vocab - tokens) * weight
    return self.probs[masked_here, np.arange(self.length)]

  def number(self, tokens: Int[np.ndarray, "*N L"]) -> Int[np.ndarray, "*N"]:
    """Returns the numbers of canvases."""
    return np.asarray(tokens @ (self.vocab + 1) ** np.arange(self.length)[::-1])

  @property
  def texts(self) -> Int[np.ndarray, " texts"]:
    """The numbers of the canvases without masks, in the order of texts."""
    return self.number(np.array(list(itertools.product(range(self.vocab), repeat=self.length))))


def canvases(length: int, vocab: int) -> Int[np.ndarray, "canvases L"]:
  """Returns the tokens of every canvas; `vocab` is the mask."""
  return np.array(list(itertools.product(range(vocab + 1), repeat=length)))


def conditionals_of(joint: Float[np.ndarray, "*V"]) -> Conditionals:
  """Returns the conditionals of a joint distribution, one axis of V tokens per position.

  All of them agree. They do not see the token at their own position. Raises ValueError for
  probabilities that are not positive: some conditionals would not exist.
  """
  if not joint.min() > 0:
    raise ValueError("a joint distribution must have positive probabilities")
  length, vocab = joint.ndim, joint.shape[0]
  probs = np.empty(((vocab + 1) ** length, length, vocab))
  for number, tokens in enumerate(canvases(length, vocab)):
    for i in range(length):
      known = tuple(
        slice(None) if j == i or token == vocab else token for j, token in enumerate(tokens)
      )
      left = joint[known]
      free = [j for j, token in enumerate(tokens) if j == i or token == vocab]
      p = left.sum(axis=tuple(axis for axis, j in enumerate(free) if j != i))
      probs[number, i] = p / p.sum()
  return Conditionals(probs)


def perturbed(toy: Conditionals, rng: np.random.Generator, scale: float) -> Conditionals:
  """Returns conditionals with scale times normal noise on their logits: they agree no more.

  As those of a trained network, they are near the conditionals of a joint distribution without
  being those of any. They do not see the token at their own position.
  """
  p = toy.probs * np.exp(scale * rng.normal(size=toy.probs.shape))
  return Conditionals(Conditionals(p / p.sum(axis=-1, keepdims=True)).shadow)
