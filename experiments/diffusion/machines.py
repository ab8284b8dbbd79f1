"""Compares machines of blocks, guidance, lookahead and APD: forward passes, time, and quality.

    python -m experiments.diffusion.machines --results=FILE.json

Measures what `experiments.diffusion.speed` does, for methods that are neither rules nor caches.
Guidance, lookahead and APD run on the bundled masked model, machines on the block-causal one. The
reference of a case decides one token per pass, at the same temperature.
"""

import dataclasses
from collections.abc import Iterator

import jax
from absl import flags
from rich.console import Console

from mtjax.bench.diffusion.machines import guided_cases, machine_cases, with_references
from mtjax.bench.diffusion.methods import DenoisingCase, measure
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.evaluate.generative import load_judge
from mtjax.evaluate.prompt_windows import windows_of
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.report import results
from mtjax.report.diffusion.methods import methods_table
from mtjax.text import TextModel

_MODEL = flags.DEFINE_string("model", "masked", 'Masked model; "": none is measured.')
_BLOCKS = flags.DEFINE_string("block_model", "block", 'Block-causal model; "": none is measured.')
_CAUSAL = flags.DEFINE_list(
  "causal",
  ["target", "draft"],
  "Causal models that accept what APD drafts, at most two; none: APD is left out.",
)
_CASES = flags.DEFINE_multi_string(
  "case", [], "Name of a method as in the tables; may be repeated. Without any, all are measured."
)
_JUDGE = flags.DEFINE_string("judge", "target", "Causal model that judges the texts.")
_TEXT = flags.DEFINE_multi_string(
  "text", None, "name=source of texts that prompts are cut from; without any, the demo's prompts."
)
_PROMPTS = flags.DEFINE_integer("prompts", 8, "Number of prompts per text.", lower_bound=1)
_PROMPT = flags.DEFINE_integer("prompt_tokens", 64, "Tokens of a prompt.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 64, "Tokens to generate.", lower_bound=1)
_BLOCK = flags.DEFINE_integer("block_length", 32, "Positions of a block.", lower_bound=1)
_BATCHES = flags.DEFINE_list("batches", ["1", "8"], "Batch sizes.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Number of interleaved rounds.", lower_bound=1)
_RESULTS = flags.DEFINE_string("results", None, "JSON file to write the figures to.")


def compared() -> Iterator[tuple[str, TextModel, list[DenoisingCase], list[str]]]:
  """Yields each model with its name, its cases, and why others are left out."""
  causal = launch.distinct(_CAUSAL) if _CAUSAL.value else []
  # As many as the library keeps in memory: with more, each run would read one.
  if len(causal) > 2:
    raise ValueError(f"--causal: at most two models, got {len(causal)}")
  if name := _MODEL.value:
    text = for_decoding(load_pretrained(name))
    yield name, text, guided_cases(_LENGTH.value, _BLOCK.value, causal), []
  if name := _BLOCKS.value:
    text = for_decoding(load_pretrained(name))
    yield name, text, *machine_cases(_LENGTH.value, text)


def run() -> None:
  launch.check_output(_RESULTS)
  if _MODEL.value and _MODEL.value == _BLOCKS.value:
    raise ValueError("--model and --block_model must be two models")
  models = list(compared())
  known = [case.name for *_, cases, _ in models for case in cases]
  if unknown := [name for name in _CASES.value if name not in known]:
    missing = [reason for *_, refused in models for reason in refused]
    raise ValueError(
      "; ".join([f"--case: {unknown[0]!r} is none of: {'; '.join(known)}", *missing])
    )
  batches = [int(batch) for batch in launch.distinct(_BATCHES)]
  judge, console = load_judge(_JUDGE.value), Console(width=170)
  tables, rows, notes = [], {}, []

  def publish(complete: bool) -> None:
    results.write(
      _RESULTS.value,
      "denoising_machines",
      tables=tables,
      rows=rows,
      settings=launch.settings(__name__),
      units=dict(seconds="s per token", bits_per_byte="bits", entropy="bits per token"),
      rounds=_ROUNDS.value,
      notes=notes,
      complete=complete,
    )

  for name, text, cases, refused in models:
    cases = with_references(cases, _CASES.value)
    if not cases:
      continue
    # The programs of all cases together would be more than a process may map.
    jax.clear_caches()
    prompts = windows_of(_TEXT.value, text.tokenizer, count=_PROMPTS.value, length=_PROMPT.value)
    say = lambda what, name=name: progress(f"{name}: {what}")  # noqa: E731
    measured = measure(
      text, judge, cases, prompts, batches=batches, rounds=_ROUNDS.value, progress=say
    )
    tables.append(methods_table(name, measured))
    rows[name] = [dataclasses.asdict(one) | dict(model=name) for one in measured]
    notes += [] if _CASES.value else refused
    console.print(tables[-1].for_terminal())
    publish(complete=False)
  for note in notes:
    console.print(note)
  publish(complete=True)


if __name__ == "__main__":
  launch.main(run)
