"""What a data set must offer for the recipe: blocks of numbers, and how to judge them."""

import dataclasses
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Examples:
  """Rows of blocks and their classes."""

  blocks: Float[np.ndarray, "N L F"]
  label: Int[np.ndarray, " N"]

  def __post_init__(self):
    if len(self.blocks) != len(self.label):
      raise ValueError(f"{len(self.blocks)} rows have {len(self.label)} labels")


class Dataset(Protocol):
  """A data set of ten classes, 0 to 9."""

  @property
  def train(self) -> Examples: ...

  @property
  def test(self) -> Examples: ...

  def judged(self, blocks: Float[np.ndarray, "N L F"]) -> Float[np.ndarray, "N H W"]:
    """Returns what the classifier sees of rows: pictures of numbers."""
    ...

  def pictures(self, blocks: Float[np.ndarray, "N L F"]) -> Float[np.ndarray, "N H W"]:
    """Returns pictures for a person, of values 0 to 1."""
    ...

  def write(self, folder: Path, name: str, blocks: Float[np.ndarray, "N L F"]) -> list[Path]:
    """Writes rows as files that a person can look at or hear, and returns their paths."""
    ...
