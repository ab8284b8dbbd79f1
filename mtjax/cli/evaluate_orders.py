r"""The part of mtjax/cli/evaluate.py that scores texts in several orders.

mtjax-evaluate --text="books=file:valid/*.txt.gz" --orders=lattice,random --rate=0.5

In rows of each text a share --rate of the tokens, at scattered places, become targets. The result
is -log p of the targets given the other tokens, exactly, in each order; for random orders it is the
mean over seeds, with the standard deviation.
"""

import dataclasses
import sys
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from rich.console import Console

from mtjax.cli import flags as launch
from mtjax.cli.evaluate_infilling import row_length
from mtjax.cli.running import progress, results_file

if TYPE_CHECKING:
  from mtjax.sharding import MeshLike

VALUES = flags.FlagValues()

_RATE = flags.DEFINE_float(
  "rate",
  0.5,
  "With --orders: share of the tokens of a row that are targets.",
  0.0,
  1.0,
  flag_values=VALUES,
)
_COUNT = flags.DEFINE_integer(
  "count", 32, "With --orders: number of rows per text.", lower_bound=1, flag_values=VALUES
)
_SEEDS = flags.DEFINE_integer(
  "seeds", 4, "With --orders: number of random orders per row.", lower_bound=1, flag_values=VALUES
)


_LIMIT = 10_000_000  # bytes at the beginning of a text that rows are taken from

FLAGS = (_RATE, _COUNT, _SEEDS)


def run(
  model_name: str,
  texts: list[str],
  orders: list[str],
  *,
  weights: str,
  limit: int | None,
  length: int | None,
  batch: int,
  mesh: "MeshLike" = "",
  output: str | None,
  results_path: str | None,
) -> None:
  from mtjax import hosts
  from mtjax.anysubset import make_canvas
  from mtjax.evaluate.order_perplexity import BY_CHANCE, check_orders, order_perplexity
  from mtjax.evaluate.sets.infill import scattered
  from mtjax.evaluate.texts import check_same_documents, named_documents
  from mtjax.models.quantize import to_int8
  from mtjax.pretrained import load_pretrained
  from mtjax.report import results
  from mtjax.report.cells import Cells

  check_orders(orders)
  if BY_CHANCE.isdisjoint(orders):
    launch.check_unused("without random orders", _SEEDS)
  loaded = load_pretrained(model_name, mesh=mesh)
  params = to_int8(loaded.params) if weights == "int8" else loaded.params
  length = row_length(loaded, length)
  limit = _LIMIT if limit is None else limit
  records, lines = {}, []
  settings = dict(
    model=model_name, weights=weights, text=texts, bytes=limit, length=length,
    rate=_RATE.value, count=_COUNT.value, seeds=_SEEDS.value,
  )  # fmt: skip
  with hosts.together("reading the texts"):
    named = named_documents(texts, loaded.tokenizer, limit=limit)
  check_same_documents(named)
  with results_file(output) as write:
    for number, (name, documents) in enumerate(named.items(), 1):
      rows = [tokens for tokens, _ in documents]
      problems = scattered(rows, size=length, rate=_RATE.value, count=_COUNT.value)
      whole = [
        _filled(blanked.tokens(), blanked.is_target(), missing) for blanked, missing in problems
      ]
      is_target = [blanked.is_target() for blanked, _ in problems]
      canvas = make_canvas(loaded.model.config, np.array(whole), np.array(is_target))
      progress(f"scoring {name}, {number} of {len(named)}: {len(whole)} rows, {len(orders)} orders")
      scores = order_perplexity(
        loaded.model,
        params,
        canvas,
        orders=orders,
        seeds=_SEEDS.value,
        batch=batch,
        mesh=loaded.mesh,
      )
      for score in scores:
        spread = f"± {score.spread:.3f}" if score.spread else ""
        figures = (f"{score.nats:.3f}", spread, f"{score.perplexity:.1f}", f"{score.tokens:,}")
        lines.append((name, score.order, *figures))
      records[name] = [
        dict(dataclasses.asdict(score), perplexity=score.perplexity) for score in scores
      ]
      write(dict(settings=settings, texts=records))
  header = ("text", "order", "NLL per token", "over seeds", "perplexity", "tokens")
  table = Cells(f"{model_name}, {_RATE.value:.0%} of the tokens as targets", header, lines)
  Console(file=sys.stdout).print(table.for_terminal())
  results.write(
    results_path,
    "orders",
    tables=[table],
    rows=records,
    units=dict(nats="nats per target token"),
    settings=settings,
  )


def _filled(tokens, is_target, missing):
  values = iter(missing)
  return [
    next(values) if target else token for token, target in zip(tokens, is_target, strict=True)
  ]
