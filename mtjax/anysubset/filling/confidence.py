"""Filling in an order that the model's own confidence decides, which changes the distribution."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.anysubset.canvas import draft_entries
from mtjax.anysubset.filling.masks.reading import (
  before_first_pass,
  read_context,
  read_newest,
  sample_along,
  write,
)
from mtjax.anysubset.filling.state import FillState, Problem
from mtjax.anysubset.network import Network
from mtjax.anysubset.single_stream import check_two_streams
from mtjax.models import Config, Params
from mtjax.sampling.logits import process
from mtjax.sampling.statistics import margin, max_probability, negative_entropy
from mtjax.types import Exactness

# (processed logits [B, P, V], canvas indices [B, P]) -> tokens [B, P]
ChooseAll = Callable[[Float[Array, "B P V"], Int[Array, "B P"]], Int[Array, "B P"]]

_READ = 32  # number of entries whose logits are held at once


CRITERIA = {"max_probability": max_probability, "entropy": negative_entropy, "margin": margin}


@dataclasses.dataclass(frozen=True)
class Confidence:
  """Every pass queries all open entries and decides the `per_pass` surest of them.

  `criterion` is a statistic of the model's distribution at an entry, at temperature 1 whatever the
  sampling is, never of the token that is sampled: ranking by a sampled token's own probability
  (LLaDA's and MaskGIT's code at a temperature) favours probable tokens, and changes the
  distribution even of a model whose conditionals all agree. With per_pass = 1 such a model keeps
  its joint distribution in whatever order; the conditionals of a trained one do not agree, so what
  it fills here has the distribution of no fixed order. Entries of one pass are sampled
  independently of each other, which changes the distribution of any model.

  Decided entries are read in the order of passes, from left to right within one pass
  (`order_of_passes`), so keys and values are cached exactly: with per_pass = 1, entries are sampled
  from the density under that order. A pass computes per_pass contents and a query for every target.
  """

  criterion: str = "max_probability"  # one of CRITERIA
  per_pass: int = 1
  exactness = Exactness.APPROXIMATE
  decides_order = True

  def __post_init__(self):
    if self.criterion not in CRITERIA:
      raise ValueError(f"criterion {self.criterion!r} is not one of {', '.join(CRITERIA)}")
    if self.per_pass < 1:
      raise ValueError(f"per_pass must be at least 1, got {self.per_pass}")

  def check(self, config: Config) -> None:
    check_two_streams(config, type(self).__name__)

  def start(self, model: Network, params: Params, problem: Problem) -> FillState:
    return start(model, params, self, problem)

  def step(self, model: Network, params: Params, problem: Problem, state: FillState) -> FillState:
    return step(model, params, self, problem, state)


def start(
  model: Network,
  params: Params,
  method: Confidence,
  problem: Problem,
  choose: ChooseAll | None = None,
) -> FillState:
  """Reads and commits the context entries, and decides the first `per_pass` targets of each row."""
  reading = read_context(model, problem)
  state = before_first_pass(model, problem, method.per_pass)
  return _decide_surest(model, params, method, problem, state, None, reading, choose)


def step(
  model: Network,
  params: Params,
  method: Confidence,
  problem: Problem,
  state: FillState,
  choose: ChooseAll | None = None,
) -> FillState:
  """Reads what the last pass decided, and decides the surest open entries, in one forward pass."""
  place = jnp.broadcast_to(jnp.arange(problem.canvas.size), state.token.shape)
  reading = read_newest(problem, state, method.per_pass, place)
  return _decide_surest(model, params, method, problem, state, state.cache, reading, choose)


def _decide_surest(model, params, method, problem, state, cache, reading, choose) -> FillState:
  """Runs a pass over `contents`, which are committed, and a query for each target entry."""
  canvas, contents = problem.canvas, reading.contents
  batch, places = problem.order.shape
  open_ = (jnp.arange(places) < problem.total[:, None]) & (
    _at(state.decided_at, problem.order) == 0
  )
  queries = draft_entries(
    model.config,
    _at(canvas.position, problem.order),
    jnp.full_like(problem.order, contents.size),
    open_,
  )
  none = jnp.zeros((batch, 0), jnp.int32)
  frontier = frontier_lib.concatenate(contents, queries)
  output = model.forward(params, frontier, cache, none)
  features = output.features[:, contents.size :]
  if problem.script is None:
    score = _scores(model, params, features, CRITERIA[method.criterion])
  else:
    # The order within a pass matters: a constraint restricts each token given those before it.
    place = problem.script.places_at(problem.order).astype(jnp.float32)
    decided = problem.script.decided_in(state.forwards + 1, problem.order)
    score = jnp.where(decided, -place, -jnp.inf)
  size = min(method.per_pass, places)
  sure, place = jax.lax.top_k(jnp.where(open_, score, -jnp.inf), size)
  logits = model.read(params, jnp.take_along_axis(features, place[:, :, None], axis=1))
  index = jnp.where(sure > -jnp.inf, _at(problem.order, place), canvas.size)
  if choose is None:
    token, logits = sample_along(problem, state, logits, index)
  else:
    token = choose(process(logits, problem.rules), _at(problem.order, place))
  cache = state.cache.commit(output.kv, frontier.position, *reading[1:])
  return write(problem, state.replace(cache=cache), index, token, logits)


def _scores(model, params, features, criterion):
  """Returns the scores of all entries, read a few at a time: all logits at once would be large."""
  batch, places, width = features.shape
  part = min(places, _READ)
  padded = jnp.pad(features, ((0, 0), (0, -places % part), (0, 0)))
  parts = padded.reshape(batch, -1, part, width).swapaxes(0, 1)

  def score(features):
    logits = model.read(params, features)
    return criterion(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))

  scores = jax.lax.map(score, parts)
  return scores.swapaxes(0, 1).reshape(batch, -1)[:, :places]


def _at(values, index):
  return jnp.take_along_axis(values, index, axis=1)
