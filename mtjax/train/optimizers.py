"""Optimizers and the learning-rate schedule, by name from a config."""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

OPTIMIZERS = ("adamw", "muon")

# Matrices of the blocks, which may be stacked, and factors of adapters. The embedding and the head
# have one row per token, and Muon's orthogonal update is not made for such tables.
_MATRIX = re.compile(r"(layer|stack)_\d+/(.*/(kernel|lora_[ab])|attention/relative)$")
# XLNet's content_bias, position_bias, segment_bias are [heads, head_dim], but no matrices.
_BIAS = re.compile(r"bias$")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Settings of `adamw`, or of `muon` for the matrices of the blocks and adamw for the rest.

  Weight decay applies to matrices and tables only, not to biases of any shape. Gradients are
  clipped to the global norm `clip`.
  """

  name: str = "adamw"
  learning_rate: float = 3e-3
  muon_learning_rate: float = 0.02
  weight_decay: float = 0.01
  b1: float = 0.9
  b2: float = 0.95
  momentum: float = 0.95
  clip: float = 1.0

  def __post_init__(self):
    if self.name not in OPTIMIZERS:
      raise ValueError(f"optimizer {self.name!r} is not one of: {', '.join(OPTIMIZERS)}")
    for field in ("learning_rate", "muon_learning_rate", "clip"):
      if not getattr(self, field) > 0:
        raise ValueError(f"optimizer.{field} must be above 0, got {getattr(self, field)}")


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Warm-up, stable, linear decay to 0 (WSD, 2404.06395): factors of the learning rate.

  Before the decay it does not depend on `steps`, so a run may be extended from there.
  """

  steps: int
  warmup: int
  decay: int

  def __post_init__(self):
    if self.steps < 1 or self.warmup < 0 or self.decay < 0:
      raise ValueError(f"steps must be >= 1, warmup and decay >= 0, got {self}")
    if self.warmup + self.decay > self.steps:
      raise ValueError(
        f"warmup {self.warmup} and decay {self.decay} do not fit in {self.steps} steps"
      )

  @property
  def stable_end(self) -> int:
    """The first step of the decay."""
    return self.steps - self.decay

  def factor(self, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """Returns the factor of the update that follows `step` updates; above 0 for step < steps."""
    step = jnp.asarray(step, jnp.float32)
    up = (step + 1) / max(self.warmup, 1)
    down = (self.steps - step) / max(self.decay, 1)
    return jnp.clip(jnp.minimum(up, down), 0.0, 1.0)


def make_optimizer(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
  """Returns the transformation that `config` names, with learning rates scaled by `schedule`."""
  clip = optax.clip_by_global_norm(config.clip)
  adamw = _adamw(config, schedule)
  if config.name == "adamw":
    return optax.chain(clip, adamw)
  muon = optax.chain(
    optax.contrib.scale_by_muon(
      beta=config.momentum,
      weight_dimension_numbers=lambda updates: jax.tree.map(_matrix_axes, updates),
    ),
    # With this scale, updates of a [K, N] matrix are as large as those of a square one.
    _scale_by_shape(),
    optax.add_decayed_weights(config.weight_decay),
    optax.scale_by_learning_rate(_rate(config.muon_learning_rate, schedule)),
  )
  return optax.chain(clip, optax.partition({"muon": muon, "adamw": adamw}, _labels))


def _adamw(config, schedule):
  return optax.adamw(
    _rate(config.learning_rate, schedule),
    b1=config.b1,
    b2=config.b2,
    weight_decay=config.weight_decay,
    mask=_decays,
  )


def _rate(peak: float, schedule: Schedule) -> Callable:
  return lambda step: peak * schedule.factor(step)


def _decays(params: PyTree) -> PyTree:
  def decays(path, leaf):
    return leaf.ndim > 1 and not _BIAS.search(_name(path))

  return jax.tree_util.tree_map_with_path(decays, params)


def _labels(params: PyTree) -> PyTree:
  def label(path, leaf):
    name = _name(path)
    is_matrix = leaf.ndim == 2 + name.startswith("stack_")
    return "muon" if is_matrix and _MATRIX.search(name) else "adamw"

  return jax.tree_util.tree_map_with_path(label, params)


def _matrix_axes(leaf: Array) -> optax.contrib.MuonDimensionNumbers:
  """Returns the axes of a matrix [K, N], or of each matrix of a stack [count, K, N]."""
  return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)


def _name(path) -> str:
  return "/".join(str(key.key) for key in path)


def _scale_by_shape():
  def scale(update):
    return update * max(1.0, update.shape[-1] / update.shape[-2]) ** 0.5

  return optax.stateless(lambda updates, _: jax.tree.map(scale, updates))
