"""Compares methods of denoising: tokens per forward pass, time, and quality of the texts.

    python -m experiments.diffusion.speed --results=FILE.json

Every policy runs on the bundled masked model, and every cache with one of them; with --crossed,
every cache with every policy. A causal judge says how probable the texts are; the entropy of their
tokens stands beside it, because a text that repeats itself is probable too. The reference of a case
decides one token per pass.
"""

import dataclasses
from collections.abc import Callable

import jax
from absl import flags
from rich.console import Console

from mtjax.bench.diffusion.bookkeeping import pass_time
from mtjax.bench.diffusion.cases import (
  CACHES,
  CROSSED,
  bidirectional_cases,
  block_cases,
  crossed_cases,
  policy_of,
)
from mtjax.bench.diffusion.long import LongResult, long_texts
from mtjax.bench.diffusion.methods import DenoisingResult, measure
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.diffusion.texts import network_of
from mtjax.evaluate.generative import load_judge
from mtjax.evaluate.prompt_windows import windows_of
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.report import results
from mtjax.report.cells import Cells
from mtjax.report.diffusion.methods import methods_table
from mtjax.sampling.logits import Sampling

_MODEL = flags.DEFINE_string("model", "masked", "Masked model: a bundled one, a folder, a hub id.")
_BLOCKS = flags.DEFINE_string("block_model", "", 'Block-causal model; "": none is measured.')
_JUDGE = flags.DEFINE_string("judge", "target", "Causal model that judges the texts.")
_TEXT = flags.DEFINE_multi_string(
  "text", None, "name=source of texts that prompts are cut from; without any, the demo's prompts."
)
_PROMPTS = flags.DEFINE_integer("prompts", 8, "Number of prompts per text.", lower_bound=1)
_PROMPT = flags.DEFINE_integer("prompt_tokens", 64, "Tokens of a prompt.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 64, "Tokens to generate.", lower_bound=1)
_BLOCK = flags.DEFINE_integer("block_length", 32, "Positions of a block.", lower_bound=1)
_CROSSED = flags.DEFINE_bool(
  "crossed", False, "Measure every policy with every cache: half an hour more."
)
_LONG = flags.DEFINE_integer("long", 512, "Tokens of a long text by blocks.", lower_bound=1)
_BATCHES = flags.DEFINE_list("batches", ["1", "8"], "Batch sizes.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Number of interleaved rounds.", lower_bound=1)
_RESULTS = flags.DEFINE_string("results", None, "JSON file to write the figures to.")


def crossed_tables(measured: list[DenoisingResult]) -> list[Cells]:
  """Returns tokens per forward, speed and quality of every policy (lines) with every cache."""
  by_name = {one.case.name: one for one in measured}
  columns = ("none", *CACHES)
  found = {(policy_of(one.case), one.case.cache): one for one in measured}

  def speed(one: DenoisingResult) -> str:
    return ", ".join(f"{ratio:.2f}x" for ratio in one.speed_up.values())

  def quality(one: DenoisingResult) -> str:
    mine, theirs = one.quality, by_name[one.case.reference].quality
    pairs = ((mine.bits_per_byte, theirs.bits_per_byte), (mine.entropy, theirs.entropy))
    return ", ".join(f"{100 * (own / other - 1):+.1f}%" for own, other in pairs)

  def lines(cell: Callable[[DenoisingResult], str]) -> list[tuple[str, ...]]:
    each = [(policy, [found.get((policy, cache)) for cache in columns]) for policy in CROSSED]
    return [(policy, *("-" if one is None else cell(one) for one in row)) for policy, row in each]

  batches = " and ".join(map(str, measured[0].seconds))
  titles = {
    "Tokens per forward, by policy and cache": lambda one: f"{one.tokens_per_forward:.2f}",
    f"Speed over one token per pass without a cache, batch {batches}": speed,
    "Bits per byte and entropy, relative to those of one token per pass without a cache": quality,
  }
  return [Cells(title, ("method", *columns), lines(cell)) for title, cell in titles.items()]


def long_table(one: LongResult) -> Cells:
  lines = [
    (name, f"{1e3 * seconds:.1f} ms", f"{one.ratio(name):.2f}x", f"{100 * one.same[name]:.0f}%")
    for name, seconds in one.seconds.items()
  ]
  header = ("cache", "per token", "speed over none", "same text as none")
  return Cells(f"{_LONG.value} tokens by blocks, batch 1", header, lines)


def bookkeeping(text, prompts, measured) -> tuple[Cells, list[dict]]:
  """Returns the time of decisions per pass at batch 1, for each case with decisions of its own."""
  network, lines, rows = network_of(text), [], []
  for one in measured:
    if one.case.denoiser.policy.revise.needs_shadow:
      continue
    progress(f"decisions of {one.case.name}")
    sampling = Sampling(temperature=one.case.temperature)
    case = one.case.denoiser
    if one.case.reads_layers:
      continue
    spent = pass_time(network, text.params, prompts[:1], case, sampling=sampling)
    rows.append(dict(case=one.case.name, share=spent.share, **spent._asdict()))
    cells = (f"{1e3 * spent.whole:.2f} ms", f"{1e3 * spent.decisions:.2f} ms")
    lines.append((one.case.name, *cells, f"{100 * spent.share:.1f}%"))
  header = ("method", "pass", "decisions", "share")
  return Cells("Time of a pass outside the network, batch 1", header, lines), rows


def row_of(one: DenoisingResult, model: str) -> dict:
  return dataclasses.asdict(one) | dict(model=model)


def run() -> None:
  launch.check_output(_RESULTS)
  batches = [int(batch) for batch in launch.distinct(_BATCHES)]
  judge, console = load_judge(_JUDGE.value), Console(width=170)
  tables, rows = [], {}

  def show(cells: Cells, complete: bool = False) -> None:
    tables.append(cells)
    console.print(cells.for_terminal())
    publish(complete)

  def publish(complete: bool) -> None:
    results.write(
      _RESULTS.value,
      "denoising_speed",
      tables=tables,
      rows=rows,
      settings=launch.settings(__name__),
      units=dict(
        seconds="s per token",
        bits_per_byte="bits",
        entropy="bits per token",
        whole="s",
        decisions="s",
      ),
      rounds=_ROUNDS.value,
      complete=complete,
    )

  models = {_MODEL.value: bidirectional_cases(_LENGTH.value, _BLOCK.value)}
  if _BLOCKS.value:
    models[_BLOCKS.value] = block_cases(_LENGTH.value)
  for name, cases in models.items():
    text = for_decoding(load_pretrained(name), "stored")
    prompts = windows_of(_TEXT.value, text.tokenizer, count=_PROMPTS.value, length=_PROMPT.value)
    say = lambda what, name=name: progress(f"{name}: {what}")  # noqa: E731
    measured = measure(
      text, judge, cases, prompts, batches=batches, rounds=_ROUNDS.value, progress=say
    )
    rows[name] = [row_of(one, name) for one in measured]
    show(methods_table(name, measured))
    # The programs of all cases together would be more than a process may map.
    jax.clear_caches()
    cells, rows[f"{name}, decisions"] = bookkeeping(text, prompts, measured)
    show(cells)
    if _CROSSED.value and name == _MODEL.value:
      crossed = []
      for group in crossed_cases(_LENGTH.value, _BLOCK.value):
        jax.clear_caches()
        crossed += measure(
          text, judge, group, prompts, batches=batches, rounds=_ROUNDS.value, progress=say
        )[1:]
      rows["crossed"] = [row_of(one, name) for one in crossed]
      for cells in crossed_tables([*measured, *crossed]):
        show(cells)
      jax.clear_caches()
      dual = [one for one in crossed if one.case.cache == "dual"]
      cells, rows["crossed, decisions"] = bookkeeping(text, prompts, dual)
      show(cells)
    if network_of(text).block_length:
      long = long_texts(text, prompts[0], length=_LONG.value, rounds=_ROUNDS.value, progress=say)
      rows["long"] = dataclasses.asdict(long)
      show(long_table(long))
  publish(complete=True)


if __name__ == "__main__":
  launch.main(run)
