"""Adaptive norms at one time: folded into norms and projections, and unfolded again.

The published MDLM (2406.07524) and BD3-LM (2503.09573) get the time 0 at every noise
(`time_conditioning` false). So what the time modulates is constant, and the network is a plain
pre-norm transformer with layer norms.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.models import TransformerConfig

FREQUENCIES = 256  # of the embedding of a time: cosines, then sines
WIDTH = 128  # of the vector that modulates, in the published models and in what we write

Flat = Mapping[str, Array]


def fold(config: TransformerConfig, stored: Flat) -> dict[str, Array]:
  """Returns the parameters of a plain transformer: those at the time 0.

  With c the vector of that time and (shift, scale, gate) = c W + b, a branch is
  x + gate F(norm(x) (1 + scale) + shift): the norm has the weight w (1 + scale) and the bias shift,
  and the last projection of F the weights gate W and gate b.
  """
  out = {path: x for path, x in stored.items() if not path.startswith("time/")}
  time = _vector(stored) if "time/mlp/up/kernel" in stored else None
  for index in range(len(config.layers)):
    at = f"layer_{index}"
    parts = _modulations(out, f"{at}/modulation", time, ("shift", "scale", "gate") * 2)
    for norm, last, (shift, scale, gate) in (
      ("attention_norm", "attention/out", parts[:3]),
      ("mlp_norm", "mlp/down", parts[3:]),
    ):
      _fold_norm(out, f"{at}/{norm}", shift, scale)
      for name in ("kernel", "bias"):
        path = f"{at}/{last}/{name}"
        if path in out:
          out[path] = _times(out[path], gate)
  shift, scale = _modulations(out, "head/modulation", time, ("shift", "scale"))
  _fold_norm(out, "final_norm", shift, scale)
  return out


def unfold(config: TransformerConfig, params: Flat) -> dict[str, Array]:
  """Returns the parameters as they are stored: `fold` gives exactly `params` again.

  The vector of the time is zero, the projections of it are their biases: the norms' biases as
  shifts, and scales and gates that change nothing.
  """
  out = {path: x for path, x in params.items() if not path.endswith("norm/bias")}
  zero, one = jnp.zeros(config.dim), jnp.ones(config.dim)
  for index in range(len(config.layers)):
    at = f"layer_{index}"
    first, second = (params[f"{at}/{norm}_norm/bias"] for norm in ("attention", "mlp"))
    bias = jnp.concatenate([first, zero, one, second, zero, one]).astype(first.dtype)
    out[f"{at}/modulation/bias"] = bias
  last = params["final_norm/bias"]
  out["head/modulation/bias"] = jnp.concatenate([last, zero]).astype(last.dtype)
  kernels = {"time/mlp/up": (FREQUENCIES, WIDTH), "time/mlp/down": (WIDTH, WIDTH)}
  kernels |= {f"layer_{i}/modulation": (WIDTH, 6 * config.dim) for i in range(len(config.layers))}
  kernels |= {"head/modulation": (WIDTH, 2 * config.dim)}
  out |= {f"{at}/kernel": jnp.zeros(shape, last.dtype) for at, shape in kernels.items()}
  return out | {f"time/mlp/{x}/bias": jnp.zeros(WIDTH, last.dtype) for x in ("up", "down")}


def _vector(stored: Flat) -> Float[Array, " W"]:
  """Returns what modulates at the time 0, whose cosines are 1 and whose sines are 0."""
  cosines = _float(stored["time/mlp/up/kernel"])[: FREQUENCIES // 2]
  hidden = jax.nn.silu(jnp.sum(cosines, axis=0) + _float(stored["time/mlp/up/bias"]))
  down, bias = (_float(stored[f"time/mlp/down/{name}"]) for name in ("kernel", "bias"))
  return jax.nn.silu(jnp.matmul(hidden, down, precision="highest") + bias)


def _modulations(
  out: dict[str, Array], path: str, time: Array | None, names: Sequence[str]
) -> list[Array | None]:
  """Takes the projection at `path` out, and returns its parts; None where nothing modulates."""
  if time is None:
    return [None] * len(names)
  kernel, bias = (_float(out.pop(f"{path}/{name}")) for name in ("kernel", "bias"))
  whole = jnp.matmul(time, kernel, precision="highest") + bias
  return list(jnp.split(whole, len(names)))


def _fold_norm(out: dict[str, Array], path: str, shift: Array | None, scale: Array | None) -> None:
  weight = out[f"{path}/weight"]
  bias = jnp.zeros_like(weight) if shift is None else shift.astype(weight.dtype)
  out[f"{path}/bias"] = bias
  out[f"{path}/weight"] = _times(weight, None if scale is None else 1 + scale)


def _times(x: Array, factor: Array | None) -> Array:
  return x if factor is None else (_float(x) * factor).astype(x.dtype)


def _float(x: Array) -> Array:
  return x.astype(jnp.float32)
