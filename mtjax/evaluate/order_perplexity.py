"""How well an any-subset model predicts the same tokens in different orders."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

from mtjax.anysubset import Canvas, lattice, log_likelihood, sink_token
from mtjax.anysubset.orders import ORDERS, get_order
from mtjax.models import Model, Params
from mtjax.sampling.logits import seed_key

LEFT_TO_RIGHT = "left_to_right"
NAMES = (*ORDERS, LEFT_TO_RIGHT)
BY_CHANCE = frozenset({"random"})


@dataclasses.dataclass(frozen=True)
class OrderScore:
  """Of the asked tokens of some texts, in one order."""

  order: str
  nats: float  # -log p an asked token
  spread: float  # standard deviation of `nats` over seeds; 0 for an order that has none
  tokens: int

  @property
  def perplexity(self) -> float:
    """Per token; depends on the tokenizer."""
    return math.exp(self.nats)


def check_orders(names: Sequence[str]) -> None:
  """ValueError, with the names there are, for names that are no order, and for none at all."""
  unknown = [name for name in names if name not in NAMES]
  if unknown or not names:
    raise ValueError(f"orders {unknown} are not among {', '.join(NAMES)}")


def order_perplexity(
  model: Model,
  params: Params,
  canvas: Canvas,
  *,
  orders: Sequence[str] = NAMES,
  seeds: int = 4,
  key: int = 0,
  batch: int = 8,
) -> list[OrderScore]:
  """-log p of the asked entries of B texts under each of `orders`, exactly, a forward pass a text.

  The orders of `mtjax.anysubset.orders` ask the asked entries given all the given ones; `random`
  does so for each of `seeds` seeds, and spreads as far as the model's conditionals disagree.
  `left_to_right` is what an autoregressive model does: the same entries are scored, and each sees
  only what stands to the left of it, given or asked. What it loses to `lattice` is what the given
  entries on the right are worth; with nothing given the two are one.

  The canvas's tokens are the text. Raises ValueError for names that are no order, no seed, and no
  asked entry at all.
  """
  check_orders(orders)
  if seeds < 1 or batch < 1:
    raise ValueError(f"seeds and batch must be at least 1, got {seeds} and {batch}")
  is_target = np.asarray(canvas.is_target)
  if not is_target.any():
    raise ValueError("nothing is asked: there is nothing to score")
  out = []
  for name in orders:
    each = [
      -_sum(model, params, canvas, name, seed_key(key + seed), batch) / is_target.sum()
      for seed in range(seeds if name in BY_CHANCE else 1)
    ]
    spread = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
    out.append(OrderScore(name, float(np.mean(each)), spread, int(is_target.sum())))
  return out


def _sum(model, params, canvas, name, key, batch) -> float:
  """log p of all asked entries of all texts."""
  scored = np.asarray(canvas.is_target)
  if name == LEFT_TO_RIGHT:
    sink = sink_token(model.config)
    first = canvas.is_context & (sink is not None and canvas.token == sink)
    canvas = canvas.replace(
      is_context=first, is_target=(canvas.is_context & ~first) | canvas.is_target
    )
    rank = np.asarray(lattice(canvas))
  else:
    rank = np.asarray(get_order(name, canvas, key))
  total, rows = 0.0, len(scored)
  batch = min(batch, rows)
  for first in range(0, rows, batch):
    # The last batch is filled up with rows that count nothing: one compilation for all.
    index = np.resize(np.arange(first, min(first + batch, rows)), batch)
    part = jax.tree.map(lambda x, index=index: x[index], canvas)
    found = np.asarray(log_likelihood(model, params, part, rank[index]), np.float64)
    counted = scored[index] & (np.arange(batch) < rows - first)[:, None]
    total += float(found[counted].sum())
  return total
