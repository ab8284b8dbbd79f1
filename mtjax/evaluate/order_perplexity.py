"""The perplexity of the same tokens in different orders, by an any-subset model."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

from mtjax.anysubset import Canvas, lattice, log_likelihood, sink_token
from mtjax.anysubset.orders import ORDERS, get_order
from mtjax.models import Model, Params
from mtjax.sampling.logits import seed_key
from mtjax.sharding import MeshLike

LEFT_TO_RIGHT = "left_to_right"
NAMES = (*ORDERS, LEFT_TO_RIGHT)
BY_CHANCE = frozenset({"random"})


@dataclasses.dataclass(frozen=True)
class OrderScore:
  """The score of the target tokens of some texts in one order."""

  order: str
  nats: float  # mean of -log p per target token
  spread: float  # standard deviation of `nats` over seeds; 0 for an order without seeds
  tokens: int  # number of target tokens

  @property
  def perplexity(self) -> float:
    """The perplexity per token, which depends on the tokenizer."""
    return math.exp(self.nats)


def check_orders(names: Sequence[str]) -> None:
  """Raises ValueError for names that are not in NAMES, and for no name at all."""
  unknown = [name for name in names if name not in NAMES]
  if unknown or not names:
    raise ValueError(f"orders must be among {', '.join(NAMES)}, got {unknown or 'none'}")


def order_perplexity(
  model: Model,
  params: Params,
  canvas: Canvas,
  *,
  orders: Sequence[str] = NAMES,
  seeds: int = 4,
  key: int = 0,
  batch: int = 8,
  mesh: MeshLike = None,
) -> list[OrderScore]:
  """Returns exact scores of the targets of B texts in each of `orders`: one forward pass per text.

  In the orders of `mtjax.anysubset.orders`, targets are predicted from the whole context; `random`
  has one order for each of `seeds` seeds, and its spread shows how far the model's conditionals
  disagree. `left_to_right` is as in an autoregressive model: the same entries are scored, and each
  sees only the entries to the left of it, context or targets. Its difference to `lattice` is the
  value of the context on the right; without context the two are equal.

  The canvas's tokens are the text. `mesh` is that of `log_likelihood`. Raises ValueError for names
  that are no order, no seed, and no target at all.
  """
  check_orders(orders)
  if seeds < 1 or batch < 1:
    raise ValueError(f"seeds and batch must be at least 1, got {seeds} and {batch}")
  is_target = np.asarray(canvas.is_target)
  if not is_target.any():
    raise ValueError("the canvas has no target entries: there is nothing to score")
  out = []
  for name in orders:
    each = [
      -_sum(model, params, canvas, name, seed_key(key + seed), batch, mesh) / is_target.sum()
      for seed in range(seeds if name in BY_CHANCE else 1)
    ]
    spread = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
    out.append(OrderScore(name, float(np.mean(each)), spread, int(is_target.sum())))
  return out


def _sum(model, params, canvas, name, key, batch, mesh) -> float:
  """Returns log p of all targets of all texts."""
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
    # The last batch is filled up with rows that do not count: all share one compilation.
    index = np.resize(np.arange(first, min(first + batch, rows)), batch)
    part = jax.tree.map(lambda x, index=index: x[index], canvas)
    log_p = log_likelihood(model, params, part, rank[index], mesh=mesh).astype(np.float64)
    counted = scored[index] & (np.arange(batch) < rows - first)[:, None]
    total += float(log_p[counted].sum())
  return total
