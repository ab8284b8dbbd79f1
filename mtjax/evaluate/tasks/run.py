"""Fills the blanks of a task's examples, one by one, and returns a record of each answer."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

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

_Any = TypeVar("_Any")
# Those of mtjax.anysubset.orders, that of a causal model (`causal_view`), and those that the
# model's confidence decides as it fills, one entry per pass.
ORDERS = (*MODEL_ORDERS, "left_to_right", *CRITERIA)


@dataclasses.dataclass(frozen=True)
class FilledExample:
  """An example as a filler left it, and what that cost."""

  tokens: tuple[int, ...]  # from its beginning, as far as the filler saw it
  num_filled: int
  forwards: int
  nats: float | None  # -log p of the reference's target tokens; None: not known


@runtime_checkable
class ExampleFiller(Protocol):
  """What fills blanks, with its settings."""

  @property
  def label(self) -> str:
    """The name of its answers: the order, or a method that decides the order itself."""
    ...

  def check(self, model: TextModel, task: str) -> None:
    """Raises ValueError for a model that cannot fill the blanks of a task."""
    ...

  def fill(self, model: TextModel, example: Example) -> FilledExample:
    """Returns the example, filled; samples depend on the example's name and on settings alone."""
    ...


@dataclasses.dataclass(frozen=True)
class Filler:
  """The settings of filling. The likelihood of the reference depends on the order only."""

  order: str = "lattice"
  method: FillMethod = SelfDraft()
  temperature: float = 0.0
  seed: int = 0

  def __post_init__(self):
    if self.order not in ORDERS:
      raise ValueError(f"order {self.order!r} is not one of {', '.join(ORDERS)}")
    if self.method.decides_order and self.order not in CRITERIA:
      raise ValueError(
        f"confidence decides the order: order must be one of {', '.join(CRITERIA)}, got "
        f"{self.order!r}"
      )

  @property
  def label(self) -> str:
    return self.order

  @property
  def decides_order(self) -> bool:
    return self.order in CRITERIA

  @property
  def method_in_order(self) -> FillMethod:
    """The `method`, or `Confidence` for an order that the model's confidence decides."""
    if not self.decides_order:
      return self.method
    per_pass = self.method.per_pass if isinstance(self.method, Confidence) else 1
    return Confidence(self.order, per_pass)

  def check(self, model: TextModel, task: str) -> None:
    """Raises ValueError for a model that cannot fill blanks."""
    check_model(model, task)

  def fill(self, model: TextModel, example: Example) -> FilledExample:
    """Returns the example, filled, with the exact -log p of its reference in a fixed order."""
    seen = causal_view(example) if self.order == "left_to_right" else example
    fixed = "lattice" if self.order == "left_to_right" else self.order
    token, is_target = np.array([seen.tokens]), np.array([seen.is_target])
    canvas = make_canvas(model.model.config, token, is_target)
    order_key, fill_key = jax.random.split(example_key(self.seed, example))
    counted = np.array(example.is_target)[: len(seen.tokens)]
    rank, nats = None, None
    if not self.decides_order:
      rank = get_order(fixed, canvas, order_key)
      log_p = log_likelihood(model.model, model.params, canvas, rank, mesh=model.mesh)[0]
      nats = float(-log_p[-len(counted) :][counted].sum())
    result = fill(
      model.model,
      model.params,
      canvas,
      method=self.method_in_order,
      rank=rank,
      sampling=Sampling(temperature=self.temperature),
      key=fill_key,
      mesh=model.mesh,
    )
    filled = tuple(result.token[0, -len(seen.tokens) :].tolist())
    return FilledExample(filled, int(is_target.sum()), int(result.forwards[0]), nats)


def example_key(seed: int, example: Example) -> jax.Array:
  """Returns the random numbers of an example."""
  return jax.random.fold_in(seed_key(seed), name_number(example.name))


def check_model(model: TextModel, task: str) -> None:
  """Raises ValueError for a model that cannot fill blanks."""
  try:
    make_canvas(model.model.config, np.array([[0]]), np.array([[True]]))
  except ValueError as error:
    raise ValueError(
      f"{task} fills blanks: {error}. Use --model=anysubset, or train one with "
      "configs/train/bundled_anysubset.py"
    ) from None


def free_positions(model: TextModel) -> int:
  """Returns the number of tokens of a text that the model has positions for."""
  config = model.model.config
  return config.max_position - (sink_token(config) is not None)


def spread(examples: Sequence[_Any], limit: int | None) -> list[_Any]:
  """Returns `limit` examples, spread evenly over the whole set, or all if there are no more."""
  count = len(examples) if limit is None else min(limit, len(examples))
  return [examples[index * len(examples) // count] for index in range(count)]


def run(
  model: TextModel,
  task: Task,
  examples: Sequence[Example],
  filler: ExampleFiller,
  *,
  known: Sequence[Record] = (),
  each: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
  """Returns one record per example, and calls `each` with a new one as soon as it is ready.

  `order` is the filler's label: an order, or the method that decides the order. `nats`: -log p of
  the reference's target tokens in this order, exactly, in one forward pass; in the order
  left_to_right, each given only the text before it. It is None if the order depends on the samples,
  because no single order then gives the probability of a text. `exact`: True if every target token
  is the reference's. Samples depend only on the seed and the example's name, so the records of an
  earlier run, `known`, are those that this one would compute.
  """
  done = {record["name"]: record for record in known if record["order"] == filler.label}
  records = []
  for example in examples:
    record = done.get(example.name)
    if record is None:
      record = _record(model, task, example, filler)
      each(record)
    records.append(record)
  return records


def _record(model: TextModel, task: Task, example: Example, filler: ExampleFiller) -> Record:
  result = filler.fill(model, example)
  filled = result.tokens
  counted = np.array(example.is_target)[: len(filled)]
  answer = Answer(
    filled, text_of(model.tokenizer, filled[example.blank]), text_of(model.tokenizer, filled)
  )
  return dict(
    name=example.name,
    order=filler.label,
    nats=result.nats,
    tokens=int(counted.sum()),
    exact=bool((np.array(filled) == np.array(example.tokens[: len(filled)]))[counted].all()),
    filled=result.num_filled,
    forwards=result.forwards,
    answer=answer.blank,
    **task.judge(example, answer),
  )


def summary(task: Task, records: Sequence[Record]) -> dict[str, float | None]:
  """Returns figures of the answers in one order; those that every task has come first."""
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


def name_number(name: str) -> int:
  """Returns a number of 31 bits for a name, the same on every machine."""
  return zlib.crc32(name.encode()) & 0x7FFFFFFF
