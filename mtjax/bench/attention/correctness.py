"""Checks attention on this device: every implementation that works here against float64 numpy."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from kernels_pallas.frontier_attention import dispatch as choice
from kernels_pallas.frontier_attention import frontier_attention
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.dispatch import Implementation
from mtjax.bench.attention import float64
from mtjax.bench.attention import inputs as kernel_inputs
from mtjax.bench.attention.kernels import AttentionShape

# Relative to the larger of 1 and the expected value; twice this for gradients. bfloat16 has 8 bits,
# in outputs and in probabilities.
TOLERANCE = dict(float32=2e-5, float16=4e-3, bfloat16=2e-2)


@dataclasses.dataclass(frozen=True)
class Case:
  """A shape with other arguments; `page`, `window` and `soft_cap` are None where there is none."""

  name: str
  shape: AttentionShape
  page: int | None = None
  window: int | None = None
  soft_cap: float | None = None
  narrow: bool = False  # a cache of 8 bits
  exceptions: bool = False  # hidden keys, and entries that always see themselves


@dataclasses.dataclass(frozen=True)
class Agreement:
  """The result of one implementation on one case."""

  case: str
  implementation: str
  worst: float | None  # largest error / tolerance: right up to 1; None: not computed, see `why`
  why: str = ""  # why it does not support the case, or how it failed

  @property
  def failed(self) -> bool:
    return bool(self.why) if self.worst is not None else self.why.startswith("raised")


def cases(heads: int, kv_heads: int, width: int, unit: int, dtype: str) -> tuple[Case, ...]:
  """Returns the table of cases. unit: slots per page; caches have four pages, frontiers up to
  3 x unit entries without a cache."""

  def decoding(entries, batch=5, dtype=dtype):
    return AttentionShape("tree", entries, 4 * unit, 4 * unit, batch, heads, kv_heads, width, dtype)

  def training(mask, gradient):
    return AttentionShape(mask, 3 * unit, 0, 0, 2, heads, kv_heads, width, dtype, gradient)

  few, many = max(unit // 16, 3), max(unit // 2, 6)
  result = [
    Case("a token", decoding(1)),
    Case("a tree", decoding(few)),
    Case("a tree in pages", decoding(few), unit),
    Case("a large tree in pages", decoding(many), unit),
    Case("pages in a window", decoding(few), unit, window=unit + 3),
    Case("int8 in pages", decoding(few), unit, narrow=True),
    Case("int8 in rows, soft cap", decoding(many), soft_cap=5.0, narrow=True),
    Case("hidden and own entries", decoding(many), exceptions=True),
    Case("float32", decoding(few, dtype="float32")),
  ]
  for mask in ("causal", "any order", "two streams", "block diffusion", "4 documents"):
    result.append(Case(mask, training(mask, False)))
  result.append(Case("any order, gradient", training("any order", True)))
  result.append(Case("two streams, gradient", training("two streams", True)))
  return tuple(result)


def inputs(case: Case) -> dict:
  """Returns the inputs: lengths of 0, around the edge of a page, and full; NaN in unseen places."""
  shape = case.shape
  arguments = kernel_inputs.with_cache(shape, case.page)
  if shape.capacity:
    unit = shape.capacity // 4
    lengths = np.resize([unit + 1, 0, 4 * unit, unit, unit - 1], shape.batch)
    arguments["lengths"] = jnp.asarray(lengths, jnp.int32)
    if case.narrow:
      arguments = kernel_inputs.in_8_bits(arguments)
    arguments = kernel_inputs.poisoned(arguments)
  if case.window is not None:
    arguments = kernel_inputs.in_window(arguments, case.window)
  if case.exceptions:
    arguments = kernel_inputs.with_exceptions(arguments)
  if case.soft_cap is not None:
    arguments["soft_cap"] = case.soft_cap
  if shape.gradient:  # NaN in unseen places would make the reference's gradients NaN
    return arguments
  nobody = jnp.asarray(~float64.seen(arguments).any(axis=1))[:, None, :, None]
  return arguments | {
    n: jnp.where(nobody, jnp.nan, arguments[n]).astype(arguments[n].dtype) for n in "kv"
  }


def implementations_here() -> tuple[Implementation, ...]:
  """Returns the implementations that run on this platform, without interpreters."""
  kernel = choice.kernel_here()
  return ("reference", "xla") if kernel is None else ("reference", "xla", kernel)


def check_implementations(names: Sequence[str]) -> None:
  """Raises ValueError for names that are unknown or belong to another machine."""
  known, here = get_args(Implementation), implementations_here()
  for name in names:
    if name not in known:
      raise ValueError(f"unknown implementation {name!r}; there are: {', '.join(known)}")
    if name not in here and not name.endswith("interpret"):
      raise ValueError(
        f"{name!r} does not run on {choice.platform_here()}; these do: {', '.join(here)}"
      )


def why_not(name: str, arguments: dict) -> str | None:
  """Returns why an implementation cannot compute these inputs; None: it can."""
  names = ("cache_k", "cache_v", "lengths", "page_table", "kv_scales", "cache_position")
  fields: Any = (arguments.get(n) for n in names)
  cache = None if arguments["cache_k"] is None else Cache(*fields)
  return choice.why_not(name, arguments["q"], arguments["k"], cache)


def check(
  cases: Sequence[Case],
  names: Sequence[str],
  *,
  attention: Callable = frontier_attention,
  progress: Callable[[str], None] = lambda text: None,
) -> list[Agreement]:
  """Runs every implementation on every case. An exception is a failure, an unsupported case not."""
  result = []
  for case in cases:
    progress(f"{case.name}: float64")
    arguments = inputs(case)
    expected = _expected(case, arguments)
    for name in names:
      progress(f"{case.name}: {name}")
      if reason := why_not(name, arguments):
        result.append(Agreement(case.name, name, None, reason))
        continue
      try:
        got = _run(case, arguments, name, attention)
      except Exception as error:  # noqa: BLE001 - the other cases are run in any case
        lines = str(error).splitlines() or [""]
        result.append(
          Agreement(case.name, name, None, f"raised {type(error).__name__}: {lines[0]}")
        )
        continue
      result.append(_verdict(case, name, got, expected))
  return result


def _cotangent(case):
  size = case.shape.batch, case.shape.entries, case.shape.heads, case.shape.width
  return np.random.default_rng(1).standard_normal(size)


def _expected(case, arguments):
  out, lse = float64.attend(arguments)
  result = dict(output=out, lse=lse)
  if case.shape.gradient:
    cotangent = np.asarray(jnp.asarray(_cotangent(case), case.shape.dtype), np.float64)
    result |= dict(zip(("dq", "dk", "dv"), float64.gradients(arguments, cotangent), strict=True))
  return result


def _run(case, arguments, name, attention):
  fixed = {n: arguments[n] for n in ("window", "soft_cap") if n in arguments}
  traced = {n: x for n, x in arguments.items() if n not in fixed}

  def both(traced):
    def of(q, k, v):
      return attention(**traced | dict(q=q, k=k, v=v), **fixed, implementation=name)

    qkv = [traced[n] for n in "qkv"]
    if not case.shape.gradient:
      return dict(zip(("output", "lse"), of(*qkv), strict=True))
    (out, lse), pull = jax.vjp(of, *qkv)
    gradients = pull((jnp.asarray(_cotangent(case), out.dtype), jnp.zeros_like(lse)))
    return dict(output=out, lse=lse) | dict(zip(("dq", "dk", "dv"), gradients, strict=True))

  # Accelerators multiply float32 in fewer bits by default.
  wide = case.shape.dtype == "float32"
  with jax.default_matmul_precision("highest") if wide else contextlib.nullcontext():
    return jax.jit(both)(traced)


def _verdict(case, name, got, expected) -> Agreement:
  worst, where = 0.0, ""
  for part, right in expected.items():
    tolerance = TOLERANCE[case.shape.dtype] * (2 if part.startswith("d") else 1)
    x = np.asarray(got[part], np.float64)
    same = x == right  # -inf among them
    with np.errstate(invalid="ignore"):
      off = np.where(same, 0, np.abs(x - right) / np.maximum(1, np.abs(right)) / tolerance)
    error = float(np.max(np.where(np.isnan(off), np.inf, off), initial=0))
    if error > worst:
      worst, where = error, part
  return Agreement(case.name, name, worst, f"{where} is off" if worst > 1 else "")
