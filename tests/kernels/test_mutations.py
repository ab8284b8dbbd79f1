"""Mistakes made on purpose: each must be seen by the comparison with oracle or reference."""

import functools
import inspect

import jax
import numpy as np
import pytest

from kernels_pallas.frontier_attention import blocks, cache_blocks, softmax, sorting
from kernels_pallas.frontier_attention.tpu import (
  gradient as tpu_grad,
)
from kernels_pallas.frontier_attention.tpu import (
  kernel as tpu,
)
from kernels_pallas.frontier_attention.tpu import (
  tiles as tpu_tiles,
)
from kernels_pallas.frontier_attention.tpu import (
  work as tpu_work,
)
from kernels_pallas.frontier_attention.xla import attention as xla
from kernels_pallas.frontier_attention.xla import blocks as xla_blocks
from tests.kernels import oracle, test_gradients, test_tpu, test_tpu_grad
from tests.kernels.cases import inputs
from tests.kernels.test_attention import CASES, SMALL, attend

FORWARD = {
  "the end of an interval belongs to it": (blocks, "point < keys.hi", "point <= keys.hi", "packed"),
  "hidden keys by place, not by index": (
    blocks,
    "queries.hidden[..., :, None] != keys.index[..., None, :]",
    "queries.hidden[..., :, None] != jnp.arange(keys.index.shape[-1])",
    "hidden",
  ),
  "own entries on the diagonal of what is sorted": (
    blocks, "query, own_key // key_block", "query, query", "own",
  ),
  "a block that begins where the queries end is empty": (
    blocks, "last >= low.min", "last > low.min", "block_local",
  ),
  "a block is taken for empty by its first key": (
    blocks, "first < high.max(-1)", "first < high.min(-1)", "content",
  ),
  "the last block is left out": (
    blocks, "jnp.sum(some, dtype=jnp.int32)", "jnp.sum(some, dtype=jnp.int32) - 1", "tree",
  ),
  "a window one wider": (
    blocks, "position + window\n", "position + window + 1\n", "no cache, window",
  ),
  "outputs in the order of stamps": (
    sorting, "jnp.argsort(order, axis=1)", "order", "two_stream",
  ),
  "values that nobody sees are multiplied by 0": (
    xla_blocks, "v_tile = _where_used(seen, v_tile)", "pass", "causal",
  ),
  "the sum is not rescaled": (softmax, "partial.total * keep", "partial.total", "tree"),
  "the output is not rescaled": (softmax, "partial.out * keep[..., None]", "partial.out", "tree"),
  "an empty row subtracts minus infinity": (
    softmax, "jnp.where(jnp.isneginf(top), 0.0, top)", "top", "two_stream",
  ),
  "one slot too many": (cache_blocks, "slot < cache.lengths", "slot <= cache.lengths", "tree"),
  "slots of a short last block twice": (
    cache_blocks, "(slot >= first) & ", "", "lengths at the edges of blocks",
  ),
  "stale values are multiplied by 0": (
    cache_blocks, 'parts["v"] = zero(parts["v"])', "pass", "tree",
  ),
  "a page table read from the wrong place": (
    cache_blocks, "start // page", "first // size", "pages",
  ),
  "values of an 8-bit cache without their scale": (
    softmax, "p *= part.scale[..., None, :]", "pass", "int8",
  ),
  "the longest row decides which blocks are whole": (
    xla, "jnp.min(cache.lengths) // size", "jnp.max(cache.lengths) // size",
    "lengths that share whole blocks",
  ),
  "the last block of a cache is forgotten": (
    xla, "-(-jnp.max(cache.lengths) // size)", "jnp.max(cache.lengths) // size", "tree",
  ),
  "blocks in a window by their place in the list": (
    xla, "index if some is None else some[index]", "index", "a window past the first blocks",
  ),
}  # fmt: skip

# As HLO these take seconds each.
TPU = {
  "scratch of the row before": (tpu, "top[...] = jnp.full_like(top, _LEAST)", "pass", "tree"),
  "the sum of the row before": (tpu, "total[...] = jnp.zeros_like(total)", "pass", "tree"),
  "the scale of one slot too many": (
    tpu, "(1, shape.page), 1) < length", "(1, shape.page), 1) <= length", "int8",
  ),
  "a slot that is not committed": (
    tpu, "(shape.rows, shape.page), 1) < length", "(shape.rows, shape.page), 1) <= length", "tree",
  ),
  "stale values are multiplied by 0": (
    tpu, "jnp.where(filled, values, jnp.zeros_like(values))", "values", "tree",
  ),
  "stale values of narrow heads are multiplied by 0": (
    tpu, "filled = slot\n", "filled = slot | True\n", "64 dimensions",
  ),
  "the first block of narrow heads again": (
    tpu, "major[w], core, 0, minor[w]", "major[w], core, 0, 0", "64 dimensions",
  ),
  "keys that nobody sees are multiplied by 0": (sorting, "jnp.where(used, x, 0)", "x", "causal"),
  "the output is not rescaled": (tpu, "acc[head] * keep", "acc[head]", "tree"),
  "the sum is not rescaled": (tpu, "keep * total[head]", "total[head]", "tree"),
  "the window by row": (
    tpu, "distance = column(shape.dims + 2)", "distance = first + 0 * column(0)",
    "pages in a window",
  ),
  "one dimension of two": (
    tpu_tiles, "for n in range(dims):", "for n in range(1):", "documents_x_order",
  ),
  "a tile that sees nothing writes nothing": (
    tpu_work, "max(~jnp.any(some, axis=2))", "max(False)", "nothing to see",
  ),
  "the last page by its floor": (
    cache_blocks, "(jnp.arange(count) * size) <", "(jnp.arange(count) * size + size - 1) <",
    "pages",
  ),
  "pages of the row before": (tpu_work, "cache.table[row,", "cache.table[0 * row,", "pages"),
  "the last step is not told": (
    tpu_work, "jnp.append(rows, -1)", "jnp.append(rows, rows[-1])", "every block of the only row",
  ),
}  # fmt: skip

TWO_CORES = {
  "the first heads of a page": (
    "major[w], core, minor[w], 0", "major[w], 0, minor[w], 0",
    "128 dimensions, int8 pages in a window",
  ),
  "the first heads of narrow ones": (
    "major[w], core, 0, minor[w]", "major[w], 0, 0, minor[w]", "int8 in pages",
  ),
  "the first heads of fresh entries": (
    "lax.div(fresh_block[w], fresh), core", "lax.div(fresh_block[w], fresh), 0", "no cache",
  ),
  "scales of the first heads": ("pl.program_id(0) * heads", "0", "int8 in pages"),
  "steps by core": ("= pl.program_id(1), ", "= pl.program_id(0), ", "no cache"),
}  # fmt: skip

BACKWARD = {
  "the log-sum-exp's cotangent with the wrong sign": ("axis=-1) - d_lse", "axis=-1) + d_lse"),
  "no scale": ("(d_p - rest_tile[..., None]) * scoring.scale", "(d_p - rest_tile[..., None])"),
  "the cap has slope one": ("d_s *= 1 - jnp.square(raw / scoring.soft_cap)", "pass"),
  "weights that are not normalised": ("- lse_tile[..., None])", ")"),
  "one block a query": ("tiles.cut(old, row, at, size) + new", "new"),
}

TPU_BACKWARD = {
  "the log-sum-exp's cotangent with the wrong sign": (
    tpu_grad, "axis=-1) - d_lse", "axis=-1) + d_lse", "soft cap",
  ),
  "queries without the scale": (tpu_grad, "(acc[...] * scoring.scale)", "acc[...]", "soft cap"),
  "keys without the scale": (tpu_grad, "(acc_k[...] * scoring.scale)", "acc_k[...]", "soft cap"),
  "scores without the scale": (tpu_grad, "s = s * scoring.scale", "pass", "soft cap"),
  "the cap has slope one": (
    tpu_grad, "d_s = d_s * (1 - jnp.square(s / scoring.soft_cap))", "pass", "soft cap",
  ),
  "weights that are not normalised": (tpu_grad, "- column(2 * head))", ")", "two_stream"),
  "all heads share the first one's sums": (
    tpu_grad, "column(2 * head + 1)", "column(1)", "two_stream",
  ),
  "an empty row subtracts minus infinity": (
    tpu_grad, "softmax.finite_top(lse)", "lse", "two_stream",
  ),
  "one block of keys a query": (tpu_grad, "acc[head] +=", "acc[head] =", "content"),
  "one tile of rows a key": (tpu_grad, "acc_k[head] +=", "acc_k[head] =", "content"),
  "one tile of rows a value": (tpu_grad, "acc_v[head] +=", "acc_v[head] =", "content"),
  "sums of the tile before": (tpu_grad, "acc[...] = jnp.zeros_like(acc)", "pass", "content"),
  "the list of queries for the keys": (tpu_grad, "some.swapaxes(1, 2)", "some", "content"),
  "gradients of keys in the order of queries": (
    tpu_grad, "sorting.back(order.keys)", "sorting.back(order.queries)", "two_stream",
  ),
  "gradients in the order of stamps": (
    sorting, "jnp.argsort(order, axis=1)", "order", "content",
  ),
  "keys that nobody sees are multiplied by 0": (
    sorting, "jnp.where(used, x, 0)", "x", "two_stream",
  ),
  "a block that nobody sees has no gradient": (
    tpu_work, "max(~jnp.any(some, axis=2))", "max(False)", "two_stream",
  ),
  "the last step is not told": (
    tpu_work, "jnp.append(outer, -1)", "jnp.append(outer, outer[-1])", "canvas",
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORWARD)
def test_is_seen_in_the_output(name, mutate):
  module, old, new, case = FORWARD[name]
  given = inputs(CASES[case])
  mutate(module, old, new)
  found = attend(given, implementation="xla", block_sizes=SMALL)
  assert not all(
    np.allclose(one, other, atol=2e-6, rtol=2e-6)
    for one, other in zip(found, oracle.attention(**given), strict=True)
  )


def test_each_of_the_slow_ones_changes_the_source_as_it_is():
  two_cores = {name: (tpu, *mutation) for name, mutation in TWO_CORES.items()}
  for name, (module, old, new, _) in [*(TPU | two_cores).items(), *TPU_BACKWARD.items()]:
    assert old in inspect.getsource(module) and old != new, name


@pytest.mark.slow
@pytest.mark.parametrize("name", TPU)
def test_is_seen_in_the_tpu_kernel(name, mutate):
  module, old, new, case = TPU[name]
  given = inputs(test_tpu.CASES[case])
  mutate(module, old, new)
  found = test_tpu.run(given, True)
  assert not all(
    np.allclose(one, other, atol=2e-6, rtol=2e-6)
    for one, other in zip(found, oracle.attention(**given), strict=True)
  )


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO_CORES)
def test_is_seen_on_two_cores(name, mutate):
  old, new, case = TWO_CORES[name]
  given = inputs(test_tpu.CASES[case])
  mutate(tpu, old, new)
  found = test_tpu.run(given, True, test_tpu.SMALL._replace(cores=2))
  assert not all(
    np.allclose(one, other, atol=2e-6, rtol=2e-6)
    for one, other in zip(found, oracle.attention(**given), strict=True)
  )


@functools.cache
def _soft_cap():
  """Returns arguments, and the reference's gradients, which no mutation changes."""
  given = jax.tree.map(test_gradients._clean, inputs(test_gradients.CASES["soft cap"]))
  return given, test_gradients.gradients(given, implementation="reference")


@pytest.mark.parametrize("name", BACKWARD)
def test_is_seen_in_the_gradient(name, mutate):
  given, expected = _soft_cap()
  mutate(xla_blocks, *BACKWARD[name])
  found = test_gradients.gradients(given, implementation="xla", block_sizes=SMALL)
  assert not all(np.allclose(found[s], expected[s], atol=5e-6, rtol=5e-5) for s in expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", TPU_BACKWARD)
def test_is_seen_in_the_gradient_of_the_tpu_kernel(name, mutate):
  module, old, new, case = TPU_BACKWARD[name]
  arguments = test_tpu_grad.arguments(inputs(test_tpu_grad.CASES[case]))
  clean = test_tpu_grad.arguments(test_tpu_grad.clean(inputs(test_tpu_grad.CASES[case])))
  expected = test_tpu_grad.gradients(*clean, None)
  mutate(module, old, new)
  jax.clear_caches()
  found = test_tpu_grad.gradients(*arguments, test_tpu_grad.SMALL)
  assert not all(np.allclose(found[s], expected[s], atol=5e-6, rtol=5e-5) for s in expected)
