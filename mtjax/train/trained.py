"""The parameters that a run trains: all of its model's, or adapters over frozen ones."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtjax.models import Model, Params
from mtjax.models.lora import LoraConfig, init_lora, merge_lora, with_lora
from mtjax.sampling.logits import seed_key
from mtjax.train.initial import initial_params
from mtjax.train.step import all_trained

FROZEN = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Adaptation:
  """Adapters, and the type in which the parameters under them are kept while they are trained."""

  lora: LoraConfig
  frozen: str = "float32"

  @classmethod
  def of(cls, fields: Mapping[str, Any]) -> "Adaptation | None":
    """Returns `config.lora` of a run's fields, or None for rank 0. Raises ValueError."""
    if not fields.get("rank", 0):
      return None
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    frozen = values.pop("frozen", cls.frozen)
    if frozen not in FROZEN:
      raise ValueError(f"lora.frozen must be one of {', '.join(FROZEN)}, got {frozen!r}")
    try:
      return cls(LoraConfig(**values), frozen)
    except ValueError as error:
      raise ValueError(f"lora.{error}") from None

  def join(self, adapters: Params, frozen: Params | None) -> Params:
    """Returns the parameters of the adapted model, with adapters beside the frozen weights."""
    assert frozen is not None
    return with_lora(frozen, adapters, self.lora.scale)


class Parts(NamedTuple):
  """The parameters before the first step."""

  trained: Params | None  # None: random ones
  frozen: Params | None  # None: there are none


def initial_parts(
  model: Model, source: str, adaptation: Adaptation | None, *, seed: int = 0
) -> Parts:
  """Returns the parameters that a run begins with; see `initial_params` for `source`.

  Frozen parameters are not in the run's checkpoints: they are made anew of `source`, or of the seed
  without one. Raises ValueError as `initial_params` and `mtjax.models.lora.init_lora` do.
  """
  params = initial_params(model, source)
  if adaptation is None:
    return Parts(params, None)
  init_key, adapters_key = jax.random.split(seed_key(seed))
  params = model.init(init_key) if params is None else params
  adapters = init_lora(adaptation.lora, params, adapters_key)
  frozen = jax.tree.map(lambda x: x.astype(jnp.dtype(adaptation.frozen)), params)
  return Parts(adapters, frozen)


def trained_shapes(model: Model, adaptation: Adaptation | None) -> Params:
  """Returns the shapes of `Parts.trained`, without computing it."""
  shapes = model.shapes()
  if adaptation is None:
    return shapes
  lora = adaptation.lora
  return jax.eval_shape(lambda params: init_lora(lora, params, jax.random.key(0)), shapes)


def join_of(adaptation: Adaptation | None) -> Callable[[Params, Params | None], Params]:
  """Returns the function that makes a model's parameters of trained and frozen ones."""
  return all_trained if adaptation is None else adaptation.join


def whole_params(adaptation: Adaptation | None, trained: Params, frozen: Params | None) -> Params:
  """Returns plain parameters of the model: adapters are merged into the frozen ones, in float32."""
  if adaptation is None:
    return trained
  frozen = jax.tree.map(lambda x: x.astype(jnp.float32), frozen)
  return merge_lora(join_of(adaptation)(trained, frozen))
