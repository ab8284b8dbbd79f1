"""Time and memory of attention over frontiers: implementations and peers on the same inputs."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kernels_pallas.frontier_attention import any_visible_blocks, frontier_attention, visible
from mtjax import frontier as frontier_lib
from mtjax.bench.repeat import nothing, repeated, stirred
from mtjax.types import Frontier

_MIN_SECONDS, _MAX_CALLS = 0.02, 400  # limits of a timed loop


@dataclasses.dataclass(frozen=True)
class AttentionShape:
  """A shape of attention: T fresh entries under a mask, over `filled` of `capacity` slots."""

  mask: str
  entries: int
  capacity: int = 0
  filled: int = 0
  batch: int = 1
  heads: int = 8
  kv_heads: int = 2
  width: int = 64
  dtype: str = "float32"
  gradient: bool = False

  def __post_init__(self):
    if self.mask not in MASKS:
      raise ValueError(f"unknown mask {self.mask!r}; there are: {', '.join(MASKS)}")
    if not 0 <= self.filled <= self.capacity:
      raise ValueError(f"filled must be 0 to {self.capacity}, the capacity: got {self.filled}")
    if self.gradient and self.capacity:
      raise ValueError("gradients need capacity 0: training has no cache")


def _documents(token):
  return frontier_lib.packed(token, 1 + jnp.arange(token.shape[1]) * 4 // token.shape[1] + token)


def _tree(token):
  """Returns a frontier with three children per node, in breadth-first order."""
  index = jnp.arange(token.shape[1])
  return frontier_lib.tree(token, jnp.broadcast_to((index + 2) // 3 - 1, token.shape))


def _order(token):
  rows = [np.random.default_rng(row).permutation(token.shape[1]) for row in range(token.shape[0])]
  index = jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
  return frontier_lib.content(token, index, jnp.asarray(np.stack(rows)))


def _halves(token, of):
  half = token[:, : token.shape[1] // 2]
  return of(half, jnp.broadcast_to(jnp.arange(half.shape[1]), half.shape))


MASKS: Mapping[str, Callable[..., Frontier]] = {
  "tree": _tree,
  "causal": frontier_lib.causal,
  "4 documents": _documents,
  "any order": _order,
  "two streams": lambda token: _halves(
    token, lambda half, index: frontier_lib.two_stream(half, half, index, index)
  ),
  "block diffusion": lambda token: _halves(
    token, lambda half, index: frontier_lib.block_diffusion(half, half, index // 16)
  ),
  "blocks of 64": lambda token: frontier_lib.block_local(
    token, jnp.broadcast_to(jnp.arange(token.shape[1]) // 64, token.shape)
  ),
}


def frontier_of(shape: AttentionShape) -> Frontier:
  return MASKS[shape.mask](jnp.zeros((shape.batch, shape.entries), jnp.int32))


def visible_share(shape: AttentionShape) -> float:
  """Returns the share of the T x T pairs of fresh entries that no implementation can skip."""
  return float(jnp.mean(frontier_lib.as_dense(frontier_of(shape))))


def block_share(shape: AttentionShape) -> float:
  """Returns the share of the blocks of fresh entries that is computed."""
  f = frontier_of(shape)
  return float(jnp.mean(any_visible_blocks(f.stamp, f.lo, f.hi)))


@dataclasses.dataclass(frozen=True)
class Timing:
  shape: AttentionShape
  system: str
  seconds: float  # median
  temporary: int | None  # peak bytes beside inputs and outputs; None: unknown here


def arrays(shape: AttentionShape, seed: int = 0) -> dict:
  """Returns q, k, v, cache_k, cache_v, lengths and the frontier's labels."""
  s, rng = shape, np.random.default_rng(seed)

  def normal(*size):
    return jnp.asarray(rng.standard_normal(size, dtype=np.float32), s.dtype)

  f = frontier_of(s)
  result = dict(
    q=normal(s.batch, s.entries, s.heads, s.width),
    k=normal(s.batch, s.kv_heads, s.entries, s.width),
    v=normal(s.batch, s.kv_heads, s.entries, s.width),
    stamp=f.stamp,
    lo=f.lo,
    hi=f.hi,
    cache_k=None,
    cache_v=None,
    lengths=None,
  )
  if s.capacity:
    for name in ("cache_k", "cache_v"):
      result[name] = normal(s.batch, s.kv_heads, s.capacity, s.width)
    result["lengths"] = jnp.full((s.batch,), s.filled, jnp.int32)
  return result


def _ours(arguments, implementation):
  return frontier_attention(**arguments, implementation=implementation)[0]


def _explicit(arguments, implementation):
  """Computes jax.nn's attention: fresh keys after those of the cache, with a mask over all."""
  seen = visible(arguments["stamp"], arguments["lo"], arguments["hi"])
  k, v = arguments["k"], arguments["v"]
  if arguments["cache_k"] is not None:
    filled = jnp.arange(arguments["cache_k"].shape[2]) < arguments["lengths"][:, None]
    filled = jnp.broadcast_to(filled[:, None], (*seen.shape[:2], filled.shape[1]))
    seen = jnp.concatenate([filled, seen], axis=2)
    k, v = (jnp.concatenate([arguments[f"cache_{n}"], x], axis=2) for n, x in (("k", k), ("v", v)))
  return jax.nn.dot_product_attention(
    arguments["q"], k.swapaxes(1, 2), v.swapaxes(1, 2), mask=seen[:, None],
    implementation=implementation,
  )  # fmt: skip


SYSTEMS: Mapping[str, Callable[[dict], jax.Array]] = {
  "xla": functools.partial(_ours, implementation="xla"),
  "dense mask": functools.partial(_ours, implementation="reference"),
  "jax.nn": functools.partial(_explicit, implementation="xla"),
}


def compare(
  shape: AttentionShape,
  systems: Sequence[str],
  *,
  rounds: int = 5,
  progress: Callable[[str], None] = lambda text: None,
) -> list[Timing]:
  """Times every system on one shape, interleaved: the median of `rounds` loops of each."""
  arguments = arrays(shape)
  programs, counts, memory = {}, {}, {}
  for name in systems:
    progress(f"compiling {name}")
    body = _body(SYSTEMS[name], shape)
    memory[name] = _temporary(body, arguments)
    programs[name] = jax.jit(repeated(body))
    _seconds(programs[name], 1, arguments)
    counts[name] = int(
      np.clip(_MIN_SECONDS / _seconds(programs[name], 1, arguments), 1, _MAX_CALLS)
    )
  seconds: dict[str, list[float]] = {name: [] for name in systems}
  for number in range(rounds):
    progress(f"round {number + 1} of {rounds}")
    for name in systems:
      seconds[name].append(_seconds(programs[name], counts[name], arguments) / counts[name])
  return [Timing(shape, name, statistics.median(seconds[name]), memory[name]) for name in systems]


def _body(system, shape):
  def forward(arguments):
    return stirred(arguments, nothing(system(arguments)))

  def training(arguments):
    def loss(q, k, v):
      return jnp.sum(jnp.square(system(arguments | dict(q=q, k=k, v=v)).astype(jnp.float32)))

    gradients = jax.grad(loss, (0, 1, 2))(arguments["q"], arguments["k"], arguments["v"])
    changed = {n: arguments[n] + 1e-9 * g for n, g in zip("qkv", gradients, strict=True)}
    return stirred(arguments | changed, nothing(gradients[0]))

  return training if shape.gradient else forward


def _seconds(program, count, arguments) -> float:
  begin = time.perf_counter()
  jax.block_until_ready(program(count, arguments))
  return time.perf_counter() - begin


def _temporary(body, arguments) -> int | None:
  memory = jax.jit(body).lower(arguments).compile().memory_analysis()
  return None if memory is None else memory.temp_size_in_bytes
