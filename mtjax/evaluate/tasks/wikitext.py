"""WikiText-2 with most tokens missing: how natural is the text that a model writes around them?"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mtjax.data.sources.text_files import read_text
from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate.generative import entropy
from mtjax.evaluate.perplexity import Score, score
from mtjax.evaluate.sets.infill import scattered
from mtjax.evaluate.tasks.examples import Example, text_of
from mtjax.evaluate.tasks.protocol import Answer, Record
from mtjax.text import TextModel

_LENGTH = 512  # number of tokens per row of the judge


@dataclasses.dataclass(frozen=True, eq=False)
class WikitextMasked:
  """The task whose measures are generative perplexity under a causal judge, and token entropy.

  Repetition lowers perplexity, but a text that repeats itself has a low entropy, too (2504.20456,
  sec. 5, reports both). Both are of the whole text, with its context, and are recorded beside those
  of the original text. The judge reads the text in its own tokens; the entropy counts the model's.
  """

  judge_model: TextModel
  rate: float = 0.95
  seed: int = 0
  temperature = 1.0

  def examples(self, path: str, tokenizer: Tokenizer, *, max_tokens: int) -> list[Example]:
    tokens = np.array(list(tokenizer.encode_documents([read_text(path)])[0]))
    rows = len(tokens) // max_tokens
    if not rows:
      raise ValueError(f"{path} holds {len(tokens)} tokens, fewer than one row of {max_tokens}")
    examples = []
    cut = scattered([tokens], size=max_tokens, rate=self.rate, count=rows, seed=self.seed)
    for number, (blanked, missing) in enumerate(cut):
      is_target = np.array(blanked.is_target())
      whole = np.array(blanked.tokens())
      whole[is_target] = missing
      text = text_of(tokenizer, whole.tolist())
      name = f"row {number}"
      examples.append(
        Example(
          name, tuple(whole.tolist()), tuple(is_target.tolist()), {"text": text, "row": number}
        )
      )
    return examples

  def judge(self, example: Example, answer: Answer) -> dict[str, float]:
    record = {"entropy": entropy(answer.tokens), "reference_entropy": entropy(example.tokens)}
    for name, text in (("judge", answer.text), ("reference", example.about["text"])):
      result = self._score(text)
      record |= {f"{name}_nats": result.nats, f"{name}_tokens": result.tokens}
    return record

  def summary(self, records: Sequence[Record]) -> dict[str, float]:
    def perplexity(name):
      nats, tokens = (sum(r[f"{name}_{field}"] for r in records) for field in ("nats", "tokens"))
      return math.exp(nats / tokens)

    return dict(
      generative_perplexity=perplexity("judge"),
      entropy=float(np.mean([r["entropy"] for r in records])),
      reference_perplexity=perplexity("reference"),
      reference_entropy=float(np.mean([r["reference_entropy"] for r in records])),
    )

  def _score(self, text: str) -> Score:
    judge = self.judge_model
    tokens = judge.tokenizer.encode_documents([text])[0]
    length = min(_LENGTH, judge.model.config.max_position)
    return score(
      judge.model,
      judge.params,
      [(tokens, len(text.encode()))],
      start=judge.tokenizer.bos_id,
      length=length,
      context=length // 2,
      batch=1,
    )
