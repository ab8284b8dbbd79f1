"""Low-rank adapters (LoRA 2106.09685) as a transformation of parameters: W + (alpha / rank) A B.

Adapters are a parameter dict of their own. At a linear map they have `lora_a` [K, R] and `lora_b`
[R, N], at any other place a parameter that replaces the model's. With stacked layers each of them
has the stack's first axis (`mtjax.models.stacking`).
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mtjax.models.model import Params

A, B = "lora_a", "lora_b"
_WEIGHTS = ("kernel", "int8", "packed")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """Which parameters of a model are adapted, and how.

  `targets` are patterns of the paths of linear maps, such as "attention/qkv" or "layer_0/mlp/.*";
  they match up to the end of the path, from its start or after a slash. Each of these gets factors
  of `rank`, whose product counts `alpha` / rank. A fused map has one pair of factors: queries, keys
  and values share their A. `trained` are patterns of parameters that are trained themselves, whole,
  such as "extra/table", the learned ids after the vocabulary.
  """

  rank: int = 16
  alpha: float = 32.0
  targets: tuple[str, ...] = ("attention/.*", "mlp/.*")
  trained: tuple[str, ...] = ()

  def __post_init__(self):
    if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
      raise ValueError(f"rank must be a whole number and at least 1, got {self.rank!r}")
    if not self.alpha > 0:
      raise ValueError(f"alpha must be above 0, got {self.alpha!r}")
    for name in ("targets", "trained"):
      for pattern in getattr(self, name):
        try:
          re.compile(pattern)
        except re.error as error:
          raise ValueError(f"{name} has {pattern!r}, which is no pattern: {error}") from None

  @property
  def scale(self) -> float:
    """What the product of the factors is multiplied by."""
    return self.alpha / self.rank


def init_lora(config: LoraConfig, params: Params, key: PRNGKeyArray) -> Params:
  """Returns new adapters for these parameters, in float32, which change nothing yet.

  A is uniform within 1 / sqrt(K), as in peft, and B is 0. Parameters that are trained themselves
  begin as they are. Raises ValueError for a pattern that matches nothing, and for packed weights.
  """
  linear, others = dict(_linear_maps(params)), dict(_leaves(params))
  _check_patterns("targets", config.targets, linear)
  _check_patterns("trained", config.trained, others)
  out: Params = {}
  for number, (path, node) in enumerate(linear.items()):
    if _matches(config.targets, path):
      if "packed" in node:
        raise ValueError(f"{path} is packed for decoding: load the model with weights=None")
      *stack, inputs, outputs = (node["kernel"] if "kernel" in node else node["int8"]).shape
      bound = inputs**-0.5
      here = jax.random.fold_in(key, number)
      a = jax.random.uniform(here, (*stack, inputs, config.rank), minval=-bound, maxval=bound)
      _set(out, f"{path}/{A}", a)
      _set(out, f"{path}/{B}", jnp.zeros((*stack, config.rank, outputs)))
  for path, leaf in others.items():
    if _matches(config.trained, path):
      _set(out, path, jnp.array(leaf, jnp.float32))
  return out


def with_lora(params: Params, adapters: Params, scale: Float[Array, ""] | float = 1.0) -> Params:
  """Returns the parameters with adapters beside the weights, which stay as they are.

  The model computes x W + scale (x A) B. W may be of any type, also int8 or packed; only the
  adapters need a gradient. Raises ValueError for adapters that are not of this model, and for
  weights that have adapters already.
  """

  def walk(node, new, path):
    out = dict(node)
    for name, value in new.items():
      here = f"{path}/{name}" if path else name
      if isinstance(value, dict):
        if not isinstance(node.get(name), dict):
          raise ValueError(f"the adapters have {here}, which the model lacks")
        out[name] = walk(node[name], value, here)
      elif name in (A, B):
        if name in node:
          raise ValueError(f"{path} has adapters already: merge those first, with merge_lora")
        _check_factors(node, new, path)
        out[name] = value * scale if name == B else value
      else:
        if name not in node or node[name].shape != value.shape:
          shape = node[name].shape if name in node else "missing"
          raise ValueError(f"{here} is {value.shape} in the adapters and {shape} in the model")
        out[name] = value
    return out

  return walk(params, adapters, "")


def merge_lora(params: Params) -> Params:
  """Returns plain parameters, W + A B, of `with_lora`'s; the sum is rounded once, to W's type.

  Raises ValueError for int8 and packed weights, which cannot hold it.
  """

  def walk(node, path):
    if not isinstance(node, dict):
      return node
    out = {key: walk(value, f"{path}/{key}".lstrip("/")) for key, value in node.items()}
    if A not in node:
      return out
    if "kernel" not in node:
      raise ValueError(f"{path} is int8 or packed: merge adapters before that")
    a, b, kernel = out.pop(A), out.pop(B), node["kernel"]
    product = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32), precision="highest")
    return {**out, "kernel": (kernel.astype(jnp.float32) + product).astype(kernel.dtype)}

  return walk(params, "")


def has_lora(params: Params) -> bool:
  """Returns whether some weights have adapters beside them."""
  return any(path.endswith(f"/{A}") for path, _ in _leaves(params))


def _check_factors(node, new, path) -> None:
  weights = next((name for name in _WEIGHTS if name in node), None)
  if weights is None or not {A, B} <= new.keys():
    raise ValueError(f"the adapters have one of {A} and {B} at {path}, or no linear map is there")
  a, b = new[A].shape, new[B].shape
  # The shape of packed weights says little: they are padded.
  expected = node[weights].shape if weights != "packed" else (*a[:-1], b[-1])
  if (*a[:-1], b[-1]) != expected or a[-1] != b[-2]:
    raise ValueError(
      f"the adapters at {path} are {a} and {b}, but the weights of the model are {expected}"
    )


def _check_patterns(name: str, patterns: tuple[str, ...], paths: Any) -> None:
  for pattern in patterns:
    if not any(_matches((pattern,), path) for path in paths):
      known = sorted({re.sub(r"^(layer|stack)_\d+/", "", path) for path in paths})
      raise ValueError(f"{name} has {pattern!r}, which matches none of: {', '.join(known)}")


def _matches(patterns: tuple[str, ...], path: str) -> bool:
  return any(re.search(rf"(^|/)(?:{pattern})$", path) for pattern in patterns)


def _linear_maps(node: Params, path: str = "") -> Iterator[tuple[str, Params]]:
  for name, value in node.items():
    here = f"{path}/{name}" if path else name
    if isinstance(value, dict):
      # An int8 table [V, D] is no linear map.
      if name != "embedding" and any(key in value for key in _WEIGHTS):
        yield here, value
      else:
        yield from _linear_maps(value, here)


def _leaves(node: Params) -> Iterator[tuple[str, Any]]:
  for path, leaf in jax.tree_util.tree_leaves_with_path(node):
    yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def _set(out: Params, path: str, value: Any) -> None:
  *folders, name = path.split("/")
  for folder in folders:
    out = out.setdefault(folder, {})
  out[name] = value
