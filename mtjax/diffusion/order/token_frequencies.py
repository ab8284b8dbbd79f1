"""How frequent each token is in a text: what `PositionCalibrated` compares probabilities with."""

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mtjax.data.sources import Source, documents
from mtjax.data.sources.text_files import read_object
from mtjax.data.tokenizers import BpeTokenizer, Tokenizer

BUNDLED = "bundled"
_CORPUS = Source.parse("builtin:tinyshakespeare#split=train")


@dataclasses.dataclass(frozen=True, eq=False)
class TokenFrequencies:
  """The number of times that each token of a vocabulary comes in a text, and that of all tokens."""

  counts: Int[np.ndarray, " V"]
  total: int

  @classmethod
  def of_texts(cls, tokenizer: Tokenizer, texts: Iterable[str]) -> "TokenFrequencies":
    """Returns the counts of the tokens of plain texts. Raises ValueError for texts without any."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for text in texts:
      (ids,) = tokenizer.encode_documents([text])
      counts += np.bincount(np.asarray([*ids], np.int64), minlength=counts.size)
    if not counts.any():
      raise ValueError("the texts have no token to count")
    return cls(counts, int(counts.sum()))

  @classmethod
  def read(cls, path: str | Path, vocab_size: int) -> "TokenFrequencies":
    """Returns the counts of a file that `save` or the authors of PC-Sampler wrote.

    Raises FileNotFoundError, and ValueError that names the file for another form, for counts below
    0, and for tokens that a vocabulary of `vocab_size` tokens lacks.
    """
    file = Path(path).expanduser()
    if not file.is_file():
      raise FileNotFoundError(
        f"there is no file {str(file)!r} of token frequencies: TokenFrequencies.of_texts(...).save "
        f"writes one, and {BUNDLED!r} are those of the bundled text"
      )
    content = read_object(file)
    total, stored = content.get("num_token"), content.get("p_baseline_dict")
    form = '{"num_token": number of tokens, "p_baseline_dict": {"token id": count, ...}}'
    if type(total) is not int or total < 1 or not isinstance(stored, dict):
      raise ValueError(f"{path} must hold {form}")
    counts = np.zeros(vocab_size, np.int64)
    for key, count in stored.items():
      if not key.isdecimal() or type(count) is not int or count < 0:
        raise ValueError(f"{path}: {key!r}: {count!r} is no count of a token; it must hold {form}")
      if int(key) >= vocab_size:
        raise ValueError(
          f"{path} counts the token {key}, and the model's vocabulary has {vocab_size} tokens: "
          "give frequencies that were counted with its tokenizer"
        )
      counts[int(key)] = count
    return cls(counts, total)

  def save(self, path: str | Path) -> None:
    """Writes the counts that are not 0 as JSON, in the form of the authors' `P_baseline.json`."""
    seen = {str(token): int(self.counts[token]) for token in np.flatnonzero(self.counts)}
    record = dict(num_token=self.total, p_baseline_dict=seen)
    Path(path).expanduser().write_text(json.dumps(record) + "\n", encoding="utf-8")

  @property
  def frequencies(self) -> Float[np.ndarray, " V"]:
    """The share of each token; one that does not come has the share of a token that comes once."""
    return (np.maximum(self.counts, 1) / self.total).astype(np.float32)


def get_frequencies(name: str, vocab_size: int) -> Float[np.ndarray, " V"]:
  """Returns the frequencies that `PositionCalibrated.frequencies` names, of a vocabulary.

  Raises ValueError and FileNotFoundError as `TokenFrequencies.read` does, and ValueError for the
  bundled ones of another vocabulary.
  """
  if not name:
    return np.full(vocab_size, 1 / vocab_size, np.float32)
  if name != BUNDLED:
    return TokenFrequencies.read(name, vocab_size).frequencies
  found = _bundled()
  if found.size != vocab_size:
    raise ValueError(
      f"the bundled frequencies are of the bundled models' {found.size} tokens, and this model has "
      f"{vocab_size}: count those of a text with its tokenizer (TokenFrequencies.of_texts), and "
      "give the file as frequencies=FILE"
    )
  return found


@functools.cache
def _bundled() -> Float[np.ndarray, " V"]:
  return TokenFrequencies.of_texts(BpeTokenizer.bundled(), documents(_CORPUS)).frequencies
