"""What a causal judge says of texts that a launcher wrote: a line to show, and figures to keep."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mtjax.evaluate.generative import TextQuality, judge_texts, load_judge
from mtjax.text import Completion, TextModel


@dataclasses.dataclass(frozen=True)
class TextJudge:
  """A causal model that judges texts, by its name."""

  name: str
  model: TextModel

  @classmethod
  def load(cls, name: str | None) -> "TextJudge | None":
    """Returns the judge of a name; None for None. Raises ValueError for one that is not causal."""
    return None if name is None else cls(name, load_judge(name))

  def figures(self, completions: Sequence[Completion]) -> dict[str, Any]:
    """Returns perplexity, bits per byte and entropy of the texts after their prompts.

    They are None if no text has a token.
    """
    prompts = [one.prompt for one in completions]
    judged = judge_texts(self.model, [one.text for one in completions], prompts)
    if not any(one.tokens for one in judged):
      return dict(judge=self.name, perplexity=None, bits_per_byte=None, entropy=None)
    quality = TextQuality.of(judged)
    return dict(
      judge=self.name,
      perplexity=quality.perplexity,
      bits_per_byte=quality.bits_per_byte,
      entropy=quality.entropy,
    )


def quality_line(figures: dict[str, Any]) -> str:
  """Returns the figures as a line."""
  if figures["perplexity"] is None:
    return f" {figures['judge']} has no text to judge"
  return (
    f" judged by {figures['judge']}: {figures['bits_per_byte']:.3f} bits per byte, perplexity "
    f"{figures['perplexity']:.1f}, entropy {figures['entropy']:.2f} bits per token"
  )
