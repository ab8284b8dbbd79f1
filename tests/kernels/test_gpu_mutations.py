"""Mistakes made on purpose in the GPU kernel: each is seen in the output, or as a race.

Of JAX 0.11 and newer, whose interpreter is fast enough (`test_gpu`).
"""

import inspect

import numpy as np
import pytest

from kernels_pallas.frontier_attention import sorting
from kernels_pallas.frontier_attention.gpu import call as gpu
from kernels_pallas.frontier_attention.gpu import kernel as gpu_kernel
from tests.kernels import oracle, test_gpu
from tests.kernels.cases import inputs
from tests.kernels.test_attention import CASES

SMALL_BLOCKS = gpu.CallSizes(8, 16, 1, 2)  # of which a tile's first is not the row's first
EDGES = "lengths at the edges of blocks"
MUTATIONS = {
  "a slot that is not committed": (
    gpu_kernel, "(column < length - start)", "(column <= length - start)", "tree",
  ),
  "the last block of a row begins where others end": (
    gpu_kernel, "(column >= first - start) & ", "", EDGES,
  ),
  "stale values are multiplied by 0": (
    gpu_kernel, "@pl.when(count < shape.block)", "@pl.when(count < 0)", "tree",
  ),
  "a warpgroup does not wait until values are cleaned": (
    gpu_kernel,
    "      plgpu.barrier_arrive(r.cleaned)\n      plgpu.barrier_wait(r.cleaned)\n", "      pass\n",
    "tree",
  ),
  "what is written over is not waited for": (
    gpu_kernel,
    "pl.when(turn >= shape.stages)(lambda: plgpu.barrier_wait(r.consumed.at[stage]))", "pass",
    EDGES,
  ),
  "labels are not waited for": (
    gpu_kernel, "plgpu.barrier_wait(r.label_here.at[stage])", "pass", "tree",
  ),
  "keys are not waited for": (
    gpu_kernel, "plgpu.barrier_wait(r.key_here.at[stage])", "pass", "tree",
  ),
  "values are not waited for": (
    gpu_kernel, "plgpu.barrier_wait(r.value_here.at[stage])", "pass", "tree",
  ),
  "reads are not fenced from the next copy": (
    gpu_kernel, "    if loaded:\n      plgpu.commit_smem()", "    if loaded:\n      pass", EDGES,
  ),
  "outputs are not fenced from their copy": (
    gpu_kernel, "  plgpu.commit_smem()\n  kept = pl.ds(", "  kept = pl.ds(", "tree",
  ),
  "the output is not rescaled": (
    gpu_kernel, "acc = acc * lax.broadcast_in_dim(keep, acc.shape, [0])", "pass", "tree",
  ),
  "the sum is not rescaled": (gpu_kernel, "total = total * keep +", "total = total +", "tree"),
  "the last block of every part is forgotten": (
    gpu_kernel, "jnp.int32(shape.parts)) for n in", "jnp.int32(shape.parts)) - n for n in", "tree",
  ),
  "the window by row": (
    gpu_kernel, "over_columns(r.places.at[stage])", "(column + start)", "pages in a window",
  ),
  "one dimension of two": (
    gpu_kernel, "for n in range(dims):", "for n in range(1):", "documents_x_order",
  ),
  "blocks by their place in the list": (
    gpu_kernel, "block = r.fresh_list[here.batch, here.tile, block]", "pass", "block_local",
  ),
  "pages of the row before": (
    gpu_kernel, "r.table[here.batch, index]", "r.table[0, index]", "pages",
  ),
  "values of an 8-bit cache without their scale": (
    gpu_kernel, "p * over_columns(v_scale)", "p", "int8 in pages",
  ),
  "the scale of one slot too many": (
    gpu_kernel, "p = jnp.where(seen, p * over_columns(v_scale), 0.0)",
    "p = p * over_columns(v_scale)", "int8 in pages",
  ),
  "the cap's slope": (
    gpu_kernel, "_tanh(s, scoring.scale / scoring.soft_cap)",
    "(s * (scoring.scale / scoring.soft_cap))",
    "soft cap",
  ),
  "rows that saw nothing count": (
    gpu_kernel, "jnp.where(some, (top", "jnp.where(some | True, (top", "nothing to see",
  ),
  "keys that nobody sees are multiplied by 0": (
    sorting, "jnp.where(used, x, 0)", "x", "causal",
  ),
  "heads of a group have the first one's labels": (
    gpu, "jnp.repeat(x, group, axis=-1)", "jnp.tile(x, group)", "tree",
  ),
}  # fmt: skip


def test_each_changes_the_source_as_it_is():
  for name, (module, old, new, _) in MUTATIONS.items():
    assert old in inspect.getsource(module) and old != new, name


@pytest.mark.slow
@pytest.mark.skipif(test_gpu.SLOW_INTERPRETER, reason="one block of threads takes seconds")
@pytest.mark.parametrize("name", MUTATIONS)
def test_is_seen(name, mutate):
  module, old, new, case = MUTATIONS[name]
  given = inputs(CASES[case])
  mutate(module, old, new)
  try:
    sizes = SMALL_BLOCKS if case == "block_local" else test_gpu.TWO
    found = test_gpu.run(given, sizes, detect_races=True)
    race = test_gpu.interpreter.get_races().races_found
  except Exception as error:
    assert "RACE DETECTED" in str(error) or "arrivals" in str(error), error
    return
  assert race or not all(
    np.allclose(one, other, atol=2e-6, rtol=2e-6)
    for one, other in zip(found, oracle.attention(**given), strict=True)
  )
