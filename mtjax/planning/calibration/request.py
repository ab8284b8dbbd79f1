"""What is planned for, and what a profile of it belongs to."""

import dataclasses
from collections.abc import Callable, Sequence

from mtjax.planning.candidate import PlanCandidate
from mtjax.planning.identity import identity
from mtjax.sampling.canonical import sampling_name
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

_TOKENS = 96  # of a text

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class PlanRequest:
  """What is planned for: profiles and plans of another request are others."""

  batch: int = 1
  context: int = 256  # tokens per row, the new ones among them
  sampling: Sampling | None = None
  texts: str = "bundled"  # a name of the texts to calibrate with

  def of(self, text: TextModel, candidate: PlanCandidate) -> dict[str, str]:
    """Returns the identity of profiles of a candidate for this request."""
    return {
      **identity(text, candidate.label, candidate.params),
      "verifier": str(candidate.arm.method.verifier),
      "sampling": sampling_name(self.sampling),
      "texts": self.texts,
      "batch": str(self.batch),
      "context": str(self.context),
    }

  def of_times(
    self, text: TextModel, candidate: PlanCandidate, candidates: Sequence[PlanCandidate]
  ) -> dict[str, str]:
    """Returns the identity of times: all candidates are measured together."""
    beside = " + ".join(one.label for one in candidates)
    return {**self.of(text, candidate), "candidates": beside}


def new_tokens(request: PlanRequest) -> int:
  """Returns the new tokens per row of a text that is calibrated with."""
  return min(_TOKENS, max(request.context // 2, 1))
