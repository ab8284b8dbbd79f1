"""Compares LLaDA's public sampler in PyTorch with ours: the same weights, as many passes.

    python -m experiments.diffusion.public_sampler --llada=generate.py

generate.py is that of github.com/ML-GSAI/LLaDA. Both decide the two likeliest tokens per pass. Ours
runs three times: with the cache `none` it computes what theirs does, and with `prefix` and `dual`
it computes less, so that the text may be another one.
"""

from absl import flags
from rich.console import Console

from mtjax.bench.diffusion.public_sampler import compare_with_public
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.evaluate.prompt_windows import windows_of
from mtjax.pretrained import load_pretrained
from mtjax.report import results
from mtjax.report.cells import Cells

_LLADA = flags.DEFINE_string("llada", None, "Path of LLaDA's generate.py.", required=True)
_MODEL = flags.DEFINE_string("model", "masked", "Masked model: a bundled one, a folder, a hub id.")
_TEXT = flags.DEFINE_multi_string(
  "text", None, "name=source of texts that prompts are cut from; without any, the demo's prompts."
)
_PROMPTS = flags.DEFINE_integer("prompts", 8, "Number of prompts per text.", lower_bound=1)
_PROMPT = flags.DEFINE_integer("prompt_tokens", 64, "Tokens of a prompt.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 64, "Tokens to generate.", lower_bound=2)
_BLOCK = flags.DEFINE_integer("block_length", 32, "Positions of a block.", lower_bound=1)
_BATCHES = flags.DEFINE_list("batches", ["1", "8"], "Batch sizes.")
_THREADS = flags.DEFINE_list("threads", ["1"], "Numbers of threads of every system.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of interleaved rounds.", lower_bound=1)
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def table(threads: int, rows: list[dict]) -> Cells:
  lines = [
    (
      row["system"],
      str(row["batch"]),
      f"{1e3 * row['seconds']:.1f} ms",
      f"{row['speed_up']:.2f}x",
      f"{100 * row['same_text']:.0f}%",
    )
    for row in rows
  ]
  passes = f"{_LENGTH.value} tokens in {_LENGTH.value // 2} passes"
  header = ("system", "batch", "per token and row", "speed", "same text, to the first difference")
  return Cells(f"LLaDA's loop, {passes}, {threads} thread(s)", header, lines)


def run() -> None:
  launch.check_output(_RESULTS)
  text = load_pretrained(_MODEL.value)
  prompts = windows_of(_TEXT.value, text.tokenizer, count=_PROMPTS.value, length=_PROMPT.value)
  tables, rows = [], []
  for threads in map(int, launch.distinct(_THREADS)):
    measured = compare_with_public(
      text,
      prompts,
      script=_LLADA.value,
      length=_LENGTH.value,
      block_length=_BLOCK.value,
      batches=[int(batch) for batch in launch.distinct(_BATCHES)],
      rounds=_ROUNDS.value,
      threads=threads,
      progress=lambda what, threads=threads: progress(f"{threads} thread(s): {what}"),
    )
    tables.append(table(threads, measured))
    rows += [dict(row, threads=threads) for row in measured]
    Console(width=130).print(tables[-1].for_terminal())
    results.write(
      _RESULTS.value,
      "public_sampler",
      tables=tables,
      rows=rows,
      settings=launch.settings(__name__),
      units=dict(seconds="s per token and row"),
      rounds=_ROUNDS.value,
      complete=threads == int(launch.distinct(_THREADS)[-1]),
    )


if __name__ == "__main__":
  launch.main(run)
