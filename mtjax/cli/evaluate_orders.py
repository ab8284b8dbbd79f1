r"""The part of mtjax/cli/evaluate.py that scores texts in several orders.

mtjax-evaluate --text="books=file:valid/*.txt.gz" --orders=lattice,random --rate=0.5

Rows of each text with that share of their tokens asked, scattered: -log p of the asked ones given
the others, exactly, in each order; of random ones the mean over seeds and how far they spread.
"""

import dataclasses
import json
import sys

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from mtjax.cli import flags as launch
from mtjax.cli.evaluate_infilling import row_length

VALUES = flags.FlagValues()

_RATE = flags.DEFINE_float(
  "rate", 0.5, "With --orders: share of a row that is asked.", 0.0, 1.0, flag_values=VALUES
)
_COUNT = flags.DEFINE_integer(
  "count", 32, "With --orders: rows of a text.", lower_bound=1, flag_values=VALUES
)
_SEEDS = flags.DEFINE_integer(
  "seeds", 4, "With --orders: random orders of a row.", lower_bound=1, flag_values=VALUES
)


_LIMIT = 10_000_000  # bytes of a text that rows are taken from

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
  output: str | None,
) -> None:
  from mtjax.anysubset import make_canvas
  from mtjax.evaluate.order_perplexity import BY_CHANCE, check_orders, order_perplexity
  from mtjax.evaluate.sets.infill import scattered
  from mtjax.evaluate.texts import named_documents
  from mtjax.models.quantize import to_int8
  from mtjax.pretrained import load_pretrained

  check_orders(orders)
  if BY_CHANCE.isdisjoint(orders):
    launch.check_unused("without random orders", _SEEDS)
  loaded = load_pretrained(model_name)
  params = to_int8(loaded.params) if weights == "int8" else loaded.params
  length = row_length(loaded, length)
  limit = _LIMIT if limit is None else limit
  table = Table("text", "order", "NLL a token", "over seeds", "perplexity", "tokens")
  records = {}
  for name, documents in named_documents(texts, loaded.tokenizer, limit=limit).items():
    rows = [tokens for tokens, _ in documents]
    problems = scattered(rows, size=length, rate=_RATE.value, count=_COUNT.value)
    whole = [
      _filled(blanked.tokens(), blanked.is_target(), missing) for blanked, missing in problems
    ]
    is_target = [blanked.is_target() for blanked, _ in problems]
    canvas = make_canvas(loaded.model.config, np.array(whole), np.array(is_target))
    with Console(stderr=True).status(f"{name}: {len(whole)} rows"):
      scores = order_perplexity(
        loaded.model, params, canvas, orders=orders, seeds=_SEEDS.value, batch=batch
      )
    for score in scores:
      spread = f"± {score.spread:.3f}" if score.spread else ""
      figures = (f"{score.nats:.3f}", spread, f"{score.perplexity:.1f}", f"{score.tokens:,}")
      table.add_row(name, score.order, *figures)
    records[name] = [
      dict(dataclasses.asdict(score), perplexity=score.perplexity) for score in scores
    ]
  Console(file=sys.stdout).print(table)
  if output is not None:
    settings = dict(
      model=model_name, weights=weights, text=texts, bytes=limit, length=length,
      rate=_RATE.value, count=_COUNT.value, seeds=_SEEDS.value,
    )  # fmt: skip
    with open(output, "w", encoding="utf-8") as file:
      json.dump(dict(settings=settings, texts=records), file, indent=2)


def _filled(tokens, is_target, missing):
  values = iter(missing)
  return [
    next(values) if is_asked else token for token, is_asked in zip(tokens, is_target, strict=True)
  ]
