"""Compares the time from the start of a process to its first token, and to all, with transformers.

    python -m experiments.bench.start --model=smollm2 --prompt_format=chat

The model is exported once in the transformers format. Every run is a process of its own, in
interleaved rounds; seconds are medians and count everything: Python, imports, weights, compilation.
"""

import tempfile
from collections.abc import Sequence

from absl import flags

from mtjax import checkpoints
from mtjax.bench.systems.start import CASES, STAGES, Start, measure, medians
from mtjax.cli import flags as launch
from mtjax.cli.prompts import formatted
from mtjax.cli.running import progress
from mtjax.pretrained import load_pretrained
from mtjax.report import results
from mtjax.report.cells import Cells

_MODEL = flags.DEFINE_string(
  "model", "target", "Model to decode with: a bundled one, smollm2, a folder, a file or a hub id."
)
_PROMPT = flags.DEFINE_string("prompt", "What is the capital of France?", "Text of the prompt.")
_FORMAT = flags.DEFINE_enum(
  "prompt_format", "text", ["text", "chat"], "Whether the prompt is a user's message in a chat."
)
_CASES = flags.DEFINE_list("cases", list(CASES), "Cases to compare.")
_REFERENCE = flags.DEFINE_string("reference", "transformers", "Case that ratios are relative to.")
_TOKENS = flags.DEFINE_integer("tokens", 64, "Number of new tokens.", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of interleaved rounds.", lower_bound=1)
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")

_HEADER = (
  "", "imports, s", "weights ready, s", "first token, s", "ratio", "all tokens, s", "ratio",
)  # fmt: skip


def table(starts: Sequence[Start]) -> Cells:
  seconds = medians(starts)
  reference = seconds.get(_REFERENCE.value)
  rows = []
  for case, at in seconds.items():
    cells = [f"{at[stage]:.1f}" for stage in STAGES]
    ratios = [f"{at[x] / reference[x]:.2f}" if reference else "-" for x in ("first", "last")]
    rows.append((case, *cells[:3], ratios[0], cells[3], ratios[1]))
  return Cells(f"from the start of a process to {_TOKENS.value} tokens", _HEADER, rows)


def publish(starts: Sequence[Start], *, complete: bool) -> None:
  results.write(
    _RESULTS.value,
    "start",
    tables=[table(starts)],
    rows=[vars(start) for start in starts],
    settings=launch.settings(__name__),
    units={stage: "s" for stage in STAGES},
    rounds=_ROUNDS.value,
    complete=complete,
  )


def run() -> None:
  launch.check_output(_RESULTS)
  unknown = [name for name in launch.distinct(_CASES) if name not in CASES]
  if unknown:
    raise ValueError(f"--cases names {unknown[0]!r}; there are: {', '.join(CASES)}")
  text = load_pretrained(_MODEL.value)
  starts = []
  with tempfile.TemporaryDirectory() as folder:
    checkpoints.save(folder, text.model, text.params, tokenizer=text.tokenizer)
    (prompt,) = formatted([_PROMPT.value], text.tokenizer, _FORMAT.value)
    ids = text.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    del text
    for start in measure(
      folder,
      ids,
      cases=_CASES.value,
      tokens=_TOKENS.value,
      rounds=_ROUNDS.value,
      progress=progress,
    ):
      starts.append(start)
      publish(starts, complete=False)
  written = {start.tokens for start in starts}
  if len(written) > 1:
    progress(f"the texts differ: {len(written)} different ones")
  from rich.console import Console

  Console(width=110).print(table(starts).for_terminal())
  publish(starts, complete=True)


if __name__ == "__main__":
  launch.main(run)
