"""Texts to calibrate with, by domain: the bundled prompts, or files of the user's."""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtjax.data.sources.text_files import parse_json, read_text, whole_text
from mtjax.pretrained import DEMO_PROMPTS
from mtjax.text import Prompt, TextModel
from mtjax.tuning.profiles.acceptance import ALL

Texts = Mapping[str, Sequence[str]]

_DOMAINS = ("prose", "code", "arithmetic")
BUNDLED_TEXTS: Texts = {
  name: (prompt,) for name, prompt in zip(_DOMAINS, DEMO_PROMPTS, strict=True)
}


def name_of(texts: Mapping[str, Sequence[Prompt]]) -> str:
  """Returns "bundled", or the domains of other texts with a hash of all of them."""
  if texts == BUNDLED_TEXTS:
    return "bundled"
  record = json.dumps({domain: list(prompts) for domain, prompts in texts.items()}, sort_keys=True)
  return f"{','.join(texts)} {hashlib.sha256(record.encode()).hexdigest()[:12]}"


def check_texts(texts: Texts) -> None:
  """Raises ValueError for a domain whose name stands for all of them, and for prompts of no text.

  Profiles would be refused too, but only after everything was measured.
  """
  if ALL in texts:
    raise ValueError(
      f"no domain of texts to calibrate with can be called {ALL!r}, which stands for all of them: "
      "give it another name"
    )
  for domain, prompts in texts.items():
    for prompt in prompts:
      if not isinstance(prompt, str):
        raise ValueError(f"a prompt of domain {domain!r} is no text: {prompt!r}")


def same_length(
  text: TextModel, texts: Texts, length: int, *, rows: int | None = None
) -> dict[str, list[list[int]]]:
  """Returns prompts of exactly `length` tokens: one program is compiled for all of them.

  A longer prompt keeps its end. Before a shorter one stands text of other domains, over and over:
  text of its own would be copied, as a user's text rarely is. Where there is no other domain, it is
  another bundled one.

  rows: prompts per domain; None: all of them, in their order. Otherwise prompts in a row come from
  all parts of the domain, because files are often sorted by kinds of questions. If there are more
  rows than prompts, a prompt stands there again without some of its last tokens and behind other
  text. It loses less than half of them, so the texts of a prompt of n tokens are alike after n / 2
  times. Raises ValueError for a domain without a prompt, and for a prompt without a token.
  """
  ids = {domain: [text.tokenizer.encode(one) for one in own] for domain, own in texts.items()}
  for domain, own in ids.items():
    if not own or not all(own):
      raise ValueError(f"a prompt of {domain!r} has no token: leave it out")
  out = {}
  for domain, own in ids.items():
    others = [one for name, each in ids.items() if name != domain for one in each]
    if not others:
      known = [text.tokenizer.encode(one) for (one,) in BUNDLED_TEXTS.values()]
      others = [one for one in known if one and one not in own] or own
    chosen = own if rows is None else _mixed(own)
    out[domain] = [_row(chosen, others, row, length) for row in range(rows or len(own))]
  return out


def _mixed(own: Sequence[list[int]]) -> list[list[int]]:
  """Returns the prompts in steps of the golden section of their number, over and over."""
  count = len(own)
  step = next(
    number for number in itertools.count(round(0.618 * count)) if math.gcd(number, count) == 1
  )
  return [own[place * step % count] for place in range(count)]


def _row(own: Sequence[list[int]], others: Sequence[list[int]], row: int, length: int) -> list[int]:
  again, one = row // len(own), own[row % len(own)]
  most = max(len(one) // 2, 1)
  # A step without a common divisor meets every length before it meets one again.
  steps = itertools.count(max(len(one) // 8, 1))
  step = next(number for number in steps if math.gcd(number, most) == 1)
  one = one[: len(one) - again * step % most]
  turn = again % len(others)
  filler = [token for other in [*others[turn:], *others[:turn]] for token in other]
  repeats = max(-(-(length - len(one)) // len(filler)), 0)
  return [*filler * repeats, *one][-length:]


def read_texts(files: Mapping[str, str | Path]) -> Texts:
  """Returns the prompts of files, by the names of their domains.

  A file of JSON lines has one {"prompt": "..."} per line; any other file is one prompt. Raises
  ValueError for a file without a prompt, for a line that is none, and for no file.
  """
  if not files:
    raise ValueError("give at least one file of text, with the name of its domain")
  return {domain: _prompts(domain, Path(path)) for domain, path in files.items()}


def _prompts(domain: str, place: Path) -> tuple[str, ...]:
  text = read_text(str(place))
  if place.suffix == ".jsonl":
    lines = enumerate(text.split("\n"), 1)
    prompts = [_prompt(line, f"{place}, line {number}") for number, line in lines if line.strip()]
  else:
    prompts = [text]
  if not any(prompt.strip() for prompt in prompts):
    raise ValueError(f"{str(place)!r} of domain {domain!r} has no text to calibrate with")
  return tuple(prompts)


def _prompt(line: str, where: str) -> str:
  try:
    prompt = "".join([parse_json(line, where)["prompt"]])  # a TypeError for anything but text
  except (KeyError, TypeError):
    raise ValueError(f'{where}: not {{"prompt": "..."}}') from None
  return whole_text(prompt, where)
