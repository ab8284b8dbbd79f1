"""Measures what caches of the denoising loop save, and how far their logits are from exact ones.

    python -m experiments.bench.diffusion_caches --model=FOLDER --results=FILE.json

Every policy computes the logits of the same canvases, those of LLaDA's loop without a cache. KL is
the mean over masked positions of KL(exact, cached). Entries are those that the network computes per
pass of the loop. A policy stops paying at the smallest batch where it takes as long as no cache.
Without --model, random networks show the time: one whose entries all see each other, and one with
blocks. A random network's divergence says nothing about a trained one's.
"""

import dataclasses

import jax
from absl import flags
from rich.console import Console

from mtjax.bench.diffusion.caches import CacheCost, measure, policies
from mtjax.bench.diffusion.networks import random_networks
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.diffusion.plan import BlockPlan
from mtjax.diffusion.texts import network_of
from mtjax.pretrained import load_pretrained
from mtjax.report import results
from mtjax.report.cells import Cells

_MODEL = flags.DEFINE_string("model", None, "Masked model: a bundled one, a folder or a hub id.")
_PROMPT = flags.DEFINE_integer("prompt_length", 128, "Tokens of a prompt.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 128, "Tokens to generate.", lower_bound=1)
_BLOCK = flags.DEFINE_integer(
  "block_length", 32, "Positions of a block, unless the model has blocks.", lower_bound=1
)
_STEPS = flags.DEFINE_integer("steps", 64, "Passes of the loop.", lower_bound=1)
_BATCHES = flags.DEFINE_list("batches", ["1", "2", "4", "8"], "Batch sizes.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of interleaved rounds.", lower_bound=1)
_RESULTS = flags.DEFINE_string("results", None, "JSON file to write the figures to.")


def table(title: str, costs: list[CacheCost]) -> Cells:
  batches = list(costs[0].seconds)
  lines = []
  for cost in costs:
    apart, stops = cost.divergence, cost.stops_paying
    cells = [f"{apart.kl:.2g}", f"{apart.difference:.2g}", f"{100 * apart.changed:.1f}%"]
    cells.append(f"{cost.entries:.0f}")
    cells += [f"{1e3 * cost.seconds[b]:.1f} ms ({cost.ratio[b]:.2f})" for b in batches]
    lines.append((cost.cache, *cells, "-" if stops is None else str(stops)))
  header = ("cache", "KL", "largest difference", "other argmax", "entries")
  return Cells(title, (*header, *(f"batch {b}" for b in batches), "stops paying at"), lines)


def run() -> None:
  launch.check_output(_RESULTS)
  batches = [int(batch) for batch in launch.distinct(_BATCHES)]
  if _MODEL.value is None:
    cases = random_networks(_BLOCK.value, _PROMPT.value + _LENGTH.value, jax.random.key(0))
  else:
    text = load_pretrained(_MODEL.value)
    cases = {_MODEL.value: (network_of(text), text.params)}
  tables, rows = [], {}
  for number, (name, (network, params)) in enumerate(cases.items(), 1):
    plan = BlockPlan(_LENGTH.value, network.block_length or _BLOCK.value, _STEPS.value)
    costs = measure(
      network,
      params,
      policies(network),
      plan,
      prompt_length=_PROMPT.value,
      batches=batches,
      rounds=_ROUNDS.value,
      progress=lambda what, name=name: progress(f"{name}: {what}"),
    )
    tables.append(table(f"{name}; in brackets the time over that without a cache", costs))
    rows[name] = [dataclasses.asdict(cost) | dict(stops=cost.stops_paying) for cost in costs]
    Console(width=170).print(tables[-1].for_terminal())
    results.write(
      _RESULTS.value,
      "diffusion_caches",
      tables=tables,
      rows=rows,
      settings=launch.settings(__name__),
      units=dict(seconds="s per pass", kl="nats", entries="entries per row and pass"),
      rounds=_ROUNDS.value,
      complete=number == len(cases),
    )


if __name__ == "__main__":
  launch.main(run)
