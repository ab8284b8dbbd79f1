r"""Records how well answers of SmolLM2 can be copied: the data of test_recorded_switch.py.

python -m tests.tuning.record_texts --data=DATA --output=tests/fixtures/copied_texts.json

SmolLM2-135M-Instruct, greedy, writes code of MBPP (2108.07732) again, and answers questions of
Vicuna-bench in prose. Prompt lookup then reads every answer: after each token it drafts 15 more,
and the record is how many of them are the answer's next tokens. The answer does not depend on what
is drafted, and what lookup drafts depends on the text alone; a draft of k tokens is the beginning
of that of 15. So rounds with any number of drafts, in any order, follow exactly from the record.
The program compares them with real decoding, and writes nothing if they differ.

DATA/mbpp and DATA/mtbench hold the authors' files, as .jsonl.gz. An answer of code is cut where the
code ends, because prose about it follows. Answers of prose are cut after 96 tokens: this small
model then often repeats itself, and no longer writes prose.
"""

import datetime
import functools
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import mtjax
from mtjax.decode.speculative import Speculative
from mtjax.draft import PromptLookup
from mtjax.draft.text_buffer import TextBuffer
from mtjax.evaluate.sets.prompts import prompts
from mtjax.trees import chain
from mtjax.tuning.profiles import count_history
from tests.tuning.recorded import CURVES, LONGEST, counted, passes

_DATA = flags.DEFINE_string("data", "DATA", "Folder of the prompt sets.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
_DOMAINS = flags.DEFINE_multi_enum(
  "domains", ["code", "prose"], ["code", "prose"], "What to record."
)
_PROMPTS = flags.DEFINE_integer("prompts", 32, "Prompts per domain.", lower_bound=2)

_JOB = "Write this code again, exactly as it is. Answer with the code alone."
_TOKENS = {"code": 192, "prose": 96}
_FENCE = "```"
_BATCH, _SHORTEST = 16, 48


def jobs(folder: Path, count: int) -> list[str]:
  """Returns one job on each of so many pieces of code of MBPP."""
  codes = (one.split("\n\n", 1)[1] for one in prompts(folder, "editing", count))
  return [f"{_JOB}\n\n{code}" for code in codes]


def questions(folder: Path, count: int) -> list[str]:
  """Returns questions of Vicuna-bench that are answered in prose, spread evenly over the set."""
  lines = gzip.decompress((folder / "mtbench" / "vicuna_question.jsonl.gz").read_bytes())
  records = [json.loads(line) for line in lines.decode().splitlines()]
  found = [one["turns"][0] for one in records if one["category"] not in ("coding", "math")]
  if len(found) < count:
    raise ValueError(f"there are only {len(found)} questions, but {count} prompts are needed")
  return [found[place * len(found) // count] for place in range(count)]


def end_of_code(model: mtjax.TextModel, answer: Sequence[int]) -> int:
  """Returns how many tokens an answer has up to the end of its first block of code."""
  return next(
    (
      count
      for count in range(1, len(answer) + 1)
      if model.tokenizer.decode(list(answer[:count])).count(_FENCE) == 2
    ),
    len(answer),
  )


@jax.jit
def _drafts(token: jax.Array, length: jax.Array) -> jax.Array:
  """Returns what lookup drafts after the first length[i] tokens of a text; -1 for no draft."""
  # It must not see what comes later.
  known = jnp.where(jnp.arange(len(token)) < length[:, None], token, 0)
  tree = PromptLookup(LONGEST).after(TextBuffer(known, length)).tree
  return jnp.where(tree.valid[:, 1:], tree.token[:, 1:], -1)


def copied(prompt: Sequence[int], answer: Sequence[int], tokens: int, size: int) -> list[int]:
  """Returns, for each token of an answer, how many of the drafts after it are right."""
  text = np.zeros(size, np.int32)
  text[: len(prompt) + len(answer)] = [*prompt, *answer]
  places = np.minimum(len(prompt) + 1 + np.arange(tokens), len(prompt) + len(answer))
  drafts, out = np.asarray(_drafts(text, places)), []
  for place in range(1, len(answer) + 1):
    true = np.array(answer[place : place + LONGEST])
    wrong = np.flatnonzero(drafts[place - 1, : len(true)] != true)
    out.append(int(wrong[0]) if len(wrong) else len(true))
  return out


def check(run, steps: int, rows: Sequence[Sequence[int]]) -> None:
  """Raises ValueError unless rounds that follow from the record are those of decoding."""
  true = count_history(run.history[1:], shape=chain(steps))  # the first record is the prefill's
  mine = functools.reduce(lambda one, two: one + two, [counted(row, steps) for row in rows])
  for one, two in ((mine.tried, true.tried), (mine.accepted, true.accepted)):
    if mine.rounds != true.rounds or not np.array_equal(one, two):
      raise ValueError(f"with {steps} drafts the record is not what decoding does:\n{one}\n{two}")


def record(_) -> None:
  model, folder, count = mtjax.load("smollm2"), Path(_DATA.value), _PROMPTS.value
  output = Path(_OUTPUT.value)
  texts: dict[str, list[str]] = {}
  if output.exists():  # domains that are not recorded now stay as they are
    texts = json.loads(output.read_text(encoding="utf-8"))["texts"]
  for domain in _DOMAINS.value:
    requests = (jobs if domain == "code" else questions)(folder, count)
    ids = [model.tokenizer.encode_chat([dict(role="user", content=one)]) for one in requests]
    tokens, found = _TOKENS[domain], []
    for begin in range(0, count, _BATCH):
      batch = ids[begin : begin + _BATCH]
      answers = model.generate(batch, max_tokens=tokens)[1].tokens
      size = max(map(len, ids)) + tokens
      rows = [copied(*pair, tokens, size) for pair in zip(batch, answers, strict=True)]
      print(f"{domain}: {begin + len(batch)} of {count} answers", flush=True)
      for steps in (3, LONGEST) if not begin else ():
        method = Speculative(PromptLookup(steps))
        run = model.generate(batch, method=method, history=True, max_tokens=tokens)[1]
        if run.tokens != answers:
          raise ValueError("an answer with drafts is not the one without")
        check(run, steps, rows)
        print(f"{domain}: rounds with {steps} drafts are those of decoding", flush=True)
      if domain == "code":
        rows = [
          row[: end_of_code(model, answer)] for row, answer in zip(rows, answers, strict=True)
        ]
      found += [row for row in rows if len(row) >= _SHORTEST]
    texts[domain] = ["".join(f"{number:x}" for number in row) for row in found]
  made = dict(
    command=f"python -m tests.tuning.record_texts --data=DATA --output={_OUTPUT.value}",
    date=datetime.date.today().isoformat(),
    target="smollm2 (SmolLM2-135M-Instruct), greedy",
    drafter=f"PromptLookup(length={LONGEST})",
    prompts=dict(code=f"MBPP: {_JOB}", prose="Vicuna-bench without coding and math"),
    copied="a hexadecimal digit per token of an answer: right drafts after it",
  )
  times = {name: passes(*curve) for name, curve in CURVES.items()}
  output.write_text(json.dumps({**made, "passes": times, "texts": texts}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
  app.run(record)
