"""Fills the blanks of a task's examples, one by one, and keeps what is known of each answer."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from mtjax.anysubset import (
  Confidence,
  FillMethod,
  SelfDraft,
  fill,
  log_likelihood,
  make_canvas,
  sink_token,
)
from mtjax.anysubset.filling.confidence import CRITERIA
from mtjax.anysubset.orders import ORDERS as MODEL_ORDERS
from mtjax.anysubset.orders import get_order
from mtjax.evaluate.tasks.examples import Example, causal_view, text_of
from mtjax.evaluate.tasks.protocol import Answer, Record, Task
from mtjax.sampling.logits import Sampling, seed_key
from mtjax.text import TextModel

# Those of mtjax.anysubset.orders, what a causal model would have to do (`causal_view`), and those
# that the model's confidence decides as it fills, one entry a pass.
ORDERS = (*MODEL_ORDERS, "left_to_right", *CRITERIA)


@dataclasses.dataclass(frozen=True)
class Filler:
  """How blanks are filled. Of it the likelihood of the reference depends on the order alone."""

  order: str = "lattice"
  method: FillMethod = SelfDraft()
  temperature: float = 0.0
  seed: int = 0

  def __post_init__(self):
    if self.order not in ORDERS:
      raise ValueError(f"order {self.order!r} is not one of {', '.join(ORDERS)}")
    if self.method.decides_order and self.order not in CRITERIA:
      raise ValueError(
        f"confidence decides on the order: give one of {', '.join(CRITERIA)}, not {self.order!r}"
      )

  @property
  def decides_order(self) -> bool:
    return self.order in CRITERIA

  @property
  def way(self) -> FillMethod:
    """`method`, or in an order of the model's confidence that, as many a pass as it says."""
    if not self.decides_order:
      return self.method
    per_pass = self.method.per_pass if isinstance(self.method, Confidence) else 1
    return Confidence(self.order, per_pass)


def check_model(model: TextModel, task: str) -> None:
  """ValueError for a model that cannot fill blanks, with what to do."""
  try:
    make_canvas(model.model.config, np.array([[0]]), np.array([[True]]))
  except ValueError as error:
    raise ValueError(
      f"{task} fills blanks: {error}. Take --model=anysubset, or train one with "
      "configs/train/bundled_anysubset.py"
    ) from None


def free_positions(model: TextModel) -> int:
  """Tokens of a text that the model has positions for."""
  config = model.model.config
  return config.max_position - (sink_token(config) is not None)


def spread(examples: Sequence[Example], limit: int | None) -> list[Example]:
  """`limit` of them, evenly over the whole set; all where there are no more."""
  count = len(examples) if limit is None else min(limit, len(examples))
  return [examples[index * len(examples) // count] for index in range(count)]


def run(
  model: TextModel,
  task: Task,
  examples: Sequence[Example],
  filler: Filler,
  *,
  known: Sequence[Record] = (),
  each: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
  """A record of each example; `each` is called with a new one as soon as it is there.

  `nats`: -log p of the reference's asked tokens in this order, exactly, in one forward pass;
  left to right each given the text before it alone; None where the order comes of what is drawn, so
  that no one order says how likely a text is. `exact`: whether every asked token is the
  reference's. Draws depend on the seed and the example's name alone, so that what an earlier run
  left, `known`, is what this one would find.
  """
  done = {record["name"]: record for record in known if record["order"] == filler.order}
  records = []
  for example in examples:
    record = done.get(example.name)
    if record is None:
      record = _record(model, task, example, filler)
      each(record)
    records.append(record)
  return records


def _record(model: TextModel, task: Task, example: Example, filler: Filler) -> Record:
  seen = causal_view(example) if filler.order == "left_to_right" else example
  fixed = "lattice" if filler.order == "left_to_right" else filler.order
  token, is_target = np.array([seen.tokens]), np.array([seen.is_target])
  canvas = make_canvas(model.model.config, token, is_target)
  key = jax.random.fold_in(seed_key(filler.seed), _number(example.name))
  order_key, fill_key = jax.random.split(key)
  counted = np.array(example.is_target)[: len(seen.tokens)]
  rank, nats = None, None
  if not filler.decides_order:
    rank = get_order(fixed, canvas, order_key)
    own = np.array(log_likelihood(model.model, model.params, canvas, rank))[0, -len(counted) :]
    nats = float(-own[counted].sum())
  found = fill(
    model.model,
    model.params,
    canvas,
    method=filler.way,
    rank=rank,
    sampling=Sampling(temperature=filler.temperature),
    key=fill_key,
  )
  filled = tuple(found.token[0, -len(seen.tokens) :].tolist())
  answer = Answer(
    filled, text_of(model.tokenizer, filled[example.blank]), text_of(model.tokenizer, filled)
  )
  return dict(
    name=example.name,
    order=filler.order,
    nats=nats,
    tokens=int(counted.sum()),
    exact=bool((np.array(filled) == token[0])[counted].all()),
    filled=int(is_target.sum()),
    forwards=int(found.forwards[0]),
    answer=answer.blank,
    **task.judge(example, answer),
  )


def summary(task: Task, records: Sequence[Record]) -> dict[str, float | None]:
  """Figures of the answers in one order; those that every task has come first."""
  tokens, filled, forwards = (
    sum(record[field] for record in records) for field in ("tokens", "filled", "forwards")
  )
  nats = [record["nats"] for record in records]
  return dict(
    examples=len(records),
    nats=None if None in nats else sum(nats) / tokens,
    exact=sum(record["exact"] for record in records) / len(records),
    tokens_per_forward=filled / forwards,
    **task.summary(records),
  )


def _number(name: str) -> int:
  """Of 31 bits, the same on every machine."""
  return zlib.crc32(name.encode()) & 0x7FFFFFFF
