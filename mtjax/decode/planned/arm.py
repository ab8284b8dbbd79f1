"""A drafter of a planned program."""

import dataclasses
from typing import Protocol, runtime_checkable

from jaxtyping import Array, Int, PyTree

from mtjax.decode.planned.watching import DraftsOfText
from mtjax.decode.speculative import Speculative
from mtjax.draft.shaped.shape import ShapedDrafter


@runtime_checkable
class LateDrafter(Protocol):
  """A drafter that can read the prompts when it is first used."""

  def start_late(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> PyTree:
    """Returns what `start` does, before the drafter has read the prompts."""
    ...


@dataclasses.dataclass(frozen=True)
class Arm:
  """A drafter, and the sizes of the target's pass that are compiled for it.

  A size is a number of entries per row: the first nodes of the drafter's tree. shaped: the drafter
  of `method` itself, where its shape is data; None: it chooses its drafts alone.
  of_text: the drafter of `method` itself, where its drafts are one chain that follows from the text
  alone (`Planned.watch`); None where they do not. late: the drafter of `method` itself, where it
  shall read the prompts when it is first chosen, if ever; None: it reads them at the start, unless
  it is `shaped`.
  """

  name: str
  method: Speculative
  sizes: tuple[int, ...]
  shaped: ShapedDrafter | None = None
  of_text: DraftsOfText | None = None
  late: LateDrafter | None = None

  def __post_init__(self):
    if not self.sizes or min(self.sizes) < 2 or len(set(self.sizes)) < len(self.sizes):
      raise ValueError(
        f"the sizes of {self.name!r} must be different numbers of at least 2 entries, got "
        f"{self.sizes}"
      )
    if self.shaped is not None and max(self.sizes) > self.shaped.size:
      raise ValueError(
        f"{self.name!r} drafts trees of up to {self.shaped.size} nodes, so no size may be larger: "
        f"got {self.sizes}"
      )
    for field, own in dict(of_text=self.of_text, late=self.late).items():
      if own not in (None, self.method.drafter):
        raise ValueError(f"{field} of {self.name!r} must be the drafter of its method, or None")
    if self.of_text is not None and self.of_text.breadth > 1:
      raise ValueError(
        f"{self.name!r} drafts up to {self.of_text.breadth} tokens per node, and only chains are "
        "watched"
      )

  @property
  def height(self) -> int:
    return self.method.drafter.height

  @property
  def breadth(self) -> int:
    """Ranks that are counted apart: 1 where only the depth counts."""
    return 1 if self.shaped is None else self.method.drafter.breadth
