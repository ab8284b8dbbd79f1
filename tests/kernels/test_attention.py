"""Every implementation gives what the float64 oracle gives, over every mask and kind of cache."""

import jax
import numpy as np
import pytest

from kernels_pallas.frontier_attention import frontier_attention
from tests.kernels import oracle
from tests.kernels.cases import MASKS, Case, inputs

# Three blocks of fresh entries, of which the last is short, and as many of the cache.
SMALL = (10, 16)
CASES = {
  **{mask: Case(mask) for mask in MASKS},
  **{f"{mask} in a window": Case(mask, window=6) for mask in ("tree", "packed", "own")},
  "no cache": Case("tree", lengths=None),
  "no cache, window": Case("causal", lengths=None, window=5),
  "one entry": Case("causal", entries=3, lengths=(1, 0, 39, 40)),
  "lengths at the edges of blocks": Case("tree", lengths=(15, 16, 17, 32, 40)),
  "lengths that share whole blocks": Case("tree", lengths=(33, 40)),
  "soft cap": Case("tree", soft_cap=1.5, scale=0.7),
  "soft cap in blocks": Case("content", lengths=None, soft_cap=1.5, scale=0.7),
  "a head each": Case("tree", heads=3, kv_heads=3),
  "one key head": Case("tree", heads=6, kv_heads=1),
  "pages": Case("tree", lengths=(0, 8, 9, 40), page=8),
  "large pages": Case("tree", lengths=(0, 19, 21), page=20),
  "pages in a window": Case("tree", lengths=(3, 21), page=8, window=6),
  "bfloat16": Case("tree", dtype="bfloat16"),
  "int8": Case("tree", cache_dtype="int8"),
  "int8 in pages": Case("tree", lengths=(7, 40), page=8, cache_dtype="int8"),
  "float8": Case("tree", cache_dtype="float8_e4m3fn"),
}


def attend(given, **settings):
  arrays = {name: x for name, x in given.items() if not isinstance(x, (int, float, type(None)))}
  rest = {name: x for name, x in given.items() if name not in arrays}
  return jax.jit(lambda arrays: frontier_attention(**arrays, **rest, **settings))(arrays)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_oracle(name):
  case = CASES[name]
  given = inputs(case)
  expected = oracle.attention(**given)
  # bfloat16 rounds weights before they meet the values, and the result.
  tolerance = dict(float32=2e-6, bfloat16=2e-2)[case.dtype]
  for settings in (dict(implementation="reference"), dict(implementation="xla", block_sizes=SMALL)):
    found = attend(given, **settings)
    for side, one, other in zip(("out", "lse"), found, expected, strict=True):
      one = np.asarray(one, np.float64)
      assert np.isfinite(one[np.isfinite(other)]).all(), f"{settings}: {side} is not finite"
      message = f"{settings}: {side}"
      np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance, err_msg=message)
