"""Methods of denoising that fill the blanks of a task's examples."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mtjax.evaluate.tasks.examples import Example
from mtjax.evaluate.tasks.run import FilledExample, example_key
from mtjax.registry.denoising.methods import AnyDenoiser
from mtjax.registry.denoising.spelled import SpelledDenoiser, filling_names
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel


@dataclasses.dataclass(frozen=True)
class DenoisingFiller:
  """A method of denoising with its sampling, which decides the order of a blank's tokens itself.

  A masked model sees the text on both sides of a blank. A block-causal one sees the text before it
  and the rest of the block in which it ends, and no more. Raises ValueError for a method that fills
  no blanks.
  """

  label: str
  denoiser: AnyDenoiser
  sampling: Mapping[str, Any]
  seed: int = 0

  def __post_init__(self):
    if not self.denoiser.fills_blanks:
      raise ValueError(
        f"{self.label} continues prompts from left to right, and fills no blanks; these methods "
        f"do: {', '.join(filling_names())}"
      )

  @classmethod
  def of(cls, spelled: SpelledDenoiser, seed: int = 0) -> "DenoisingFiller":
    """Returns the method that a command line spells."""
    return cls(spelled.name, spelled.denoiser, spelled.sampling, seed)

  def check(self, model: TextModel, task: str) -> None:
    """Raises ValueError for a model that the method cannot run on."""
    try:
      self.denoiser.check(model)
    except ValueError as error:
      raise ValueError(f"{task} with {self.label}: {error}") from None

  def fill(self, model: TextModel, example: Example) -> FilledExample:
    """Returns the example, filled; its reference has no -log p in an order of samples."""
    is_target = np.array(example.is_target)
    run = self.denoiser.fill_blanks(
      model,
      [example.tokens],
      [is_target],
      sampling=Sampling(**dict(self.sampling)),
      key=jnp.stack([example_key(self.seed, example)]),
    )
    filled = np.array(example.tokens)
    filled[is_target] = run.tokens[0]
    return FilledExample(
      tuple(filled.tolist()), int(is_target.sum()), int(run.forwards[0]), nats=None
    )
