"""Weights read per second by packed_matmul and by XLA, beside the memory bandwidth.

  taskset -c 0   python -m experiments.bench.native
  taskset -c 0,1 python -m experiments.bench.native --dtypes=int8 --rows=1,8

Each figure is one jitted while_loop over as many different weights as make up the model's size, so
that caches behave as in decoding, all on huge pages; GB/s counts each weight once per product. Both
implementations run in turn and the best round of each counts: other work on the machine can only
slow a round. XLA multiplies bfloat16 by bfloat16 (x is rounded), packed_matmul keeps x in float32.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from mtjax.cli import flags as launch
from mtjax.native import build, matmul
from mtjax.native.bandwidth import measure_bandwidth
from mtjax.native.memory import on_huge_pages
from mtjax.report import results
from mtjax.report.cells import Cells

_SHAPES = flags.DEFINE_list(
  "shapes", ["320x960", "320x1920", "960x320", "320x4096"], "Shapes of the weights, as KxN."
)
_ROWS = flags.DEFINE_list("rows", ["1", "2", "4", "8", "16", "64", "512"], "Numbers of rows of x.")
_DTYPES = flags.DEFINE_list(
  "dtypes", ["float32", "bfloat16", "int8"], "Types of the weights to measure."
)
_PARAMETERS = flags.DEFINE_integer(
  "parameters", 12_000_000, "Number of weights that one pass reads."
)
_ROUNDS = flags.DEFINE_integer("rounds", 12, "Number of rounds; the best one counts.")
_SECONDS = flags.DEFINE_float("seconds", 0.03, "Minimum time of a round, in seconds.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")
HEADER = ("dtype", "K x N", "M", "native ms", "xla ms", "ratio", "GB/s", "share", "GFLOP/s")


def xla(x, weights):
  kernel, scale = weights
  if kernel.dtype == jnp.bfloat16:
    return jnp.dot(x.astype(jnp.bfloat16), kernel, preferred_element_type=jnp.float32)
  y = jnp.dot(x, kernel.astype(jnp.float32))
  return y if scale is None else y * scale


def native(x, weights):
  kernel, scale, n = weights
  return matmul.packed_matmul(x, kernel, scale, n=n.shape[0], implementation="native")


@jax.jit(static_argnums=0)
def passes(function, x, weights, count):
  """Runs `count` passes over all weights; each product waits for the one before."""

  def one(carry):
    i, x = carry
    for w in weights:
      x += 1e-30 * function(x, w)[:, :1]
    return i + 1, x

  return jax.lax.while_loop(lambda carry: carry[0] < count, one, (0, x))[1]


def timed(function, x, weights, count) -> float:
  began = time.perf_counter()
  passes(function, x, weights, count).block_until_ready()
  return (time.perf_counter() - began) / count


def publish(lines: list[dict], limits: dict[str, float], *, complete: bool) -> None:
  cells = [
    (
      line["dtype"], line["shape"], str(line["rows"]), f"{line['native'] * 1e3:.3f}",
      f"{line['xla'] * 1e3:.3f}", f"{line['xla'] / line['native']:.2f}", f"{line['read']:.1f}",
      f"{line['read'] / limits[line['dtype']]:.2f}", f"{line['flops']:.1f}",
    )
    for line in lines
  ]  # fmt: skip
  results.write(
    _RESULTS.value,
    "native",
    tables=[Cells(f"{build.threads()} thread(s)", HEADER, cells)],
    rows=lines,
    settings=launch.settings(__name__),
    units=dict(native="s", xla="s", read="GB/s", flops="GFLOP/s"),
    rounds=_ROUNDS.value,
    limits={f"reading {name} weights, GB/s": round(rate, 1) for name, rate in limits.items()},
    complete=complete,
  )


def run():
  launch.check_output(_RESULTS)
  if reason := matmul.support():
    raise ValueError(f"the native code cannot be used: {reason}")
  size = _PARAMETERS.value
  limits = {dtype: measure_bandwidth(size * jnp.dtype(dtype).itemsize) for dtype in _DTYPES.value}
  print(f"{build.threads()} thread(s); read bandwidth at the size of the weights, GB/s:", limits)
  print(f"{'dtype':9} {'K x N':>9} {'M':>4} {'native ms':>10} {'xla ms':>8} {'ratio':>6}", end="")
  print(f" {'GB/s':>6} {'share':>6} {'GFLOP/s':>8}")
  lines = []
  for dtype in _DTYPES.value:
    for shape in _SHAPES.value:
      K, N = (int(part) for part in shape.split("x"))
      copies = max(1, round(size / (K * N)))
      rng = np.random.default_rng(0)
      kernels = [jnp.asarray(rng.normal(size=(K, N)), jnp.float32) for _ in range(copies)]
      if dtype == "int8":
        plain = [matmul.quantize_int8(kernel) for kernel in kernels]
      else:
        plain = [(kernel.astype(dtype), None) for kernel in kernels]
      packed = [(matmul.pack_weights(w), scale, jnp.zeros(N)) for w, scale in plain]
      plain, packed = on_huge_pages(plain), on_huge_pages(packed)
      for rows in map(int, _ROWS.value):
        x = jnp.asarray(rng.normal(size=(rows, K)), jnp.float32)
        best = {}
        for function, weights in ((native, packed), (xla, plain)):
          first = min(timed(function, x, weights, 1) for _ in range(2))
          count = max(1, int(_SECONDS.value / first))
          best[function] = (function, x, weights, count), first
        for _ in range(_ROUNDS.value):
          for function, (call, before) in best.items():
            best[function] = call, min(before, timed(*call))
        ours, theirs = best[native][1], best[xla][1]
        speed = copies * K * N * jnp.dtype(dtype).itemsize / ours / 1e9
        flops = 2 * rows * copies * K * N / ours / 1e9
        print(f"{dtype:9} {shape:>9} {rows:4} {ours * 1e3:10.3f} {theirs * 1e3:8.3f}", end="")
        print(f" {theirs / ours:6.2f} {speed:6.1f} {speed / limits[dtype]:6.2f} {flops:8.1f}")
        rates = dict(native=ours, xla=theirs, read=speed, flops=flops)
        lines.append(dict(dtype=dtype, shape=shape, rows=rows, **rates))
      publish(lines, limits, complete=False)
  publish(lines, limits, complete=True)


if __name__ == "__main__":
  launch.main(run)
