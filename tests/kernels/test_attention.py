"""Every implementation gives what the float64 oracle gives, over every mask and kind of cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractDevice, AbstractMesh

from kernels_pallas.frontier_attention import chosen, frontier_attention, merged
from kernels_pallas.frontier_attention.cache_blocks import Cache
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
  "lengths that share whole blocks": Case("tree", lengths=(17, 40)),
  "nothing to see": Case("nobody", lengths=(0, 3)),
  "every block of the only row": Case("canvas", entries=8, lengths=(40,)),
  "soft cap": Case("tree", soft_cap=1.5, scale=0.7),
  "soft cap in blocks": Case("content", lengths=None, soft_cap=1.5, scale=0.7),
  "a head each": Case("tree", heads=3, kv_heads=3),
  "one key head": Case("tree", heads=6, kv_heads=1),
  "pages": Case("tree", lengths=(0, 8, 9, 40), page=8),
  "large pages": Case("tree", lengths=(0, 19, 21), page=20),
  "pages in a window": Case("tree", lengths=(3, 21), page=8, window=6),
  "a window past the first blocks": Case("tree", lengths=(40, 38), window=6, ordered=True),
  "bfloat16": Case("tree", dtype="bfloat16"),
  "int8": Case("tree", cache_dtype="int8"),
  "int8 in pages": Case("tree", lengths=(7, 40), page=8, cache_dtype="int8"),
  "float8": Case("tree", cache_dtype="float8_e4m3fn"),
}


def attend(given, **how):
  arrays = {name: x for name, x in given.items() if not isinstance(x, (int, float, type(None)))}
  rest = {name: x for name, x in given.items() if name not in arrays}
  return jax.jit(lambda arrays: frontier_attention(**arrays, **rest, **how))(arrays)


def close(found, expected, tolerance, message):
  for side, one, other in zip(("out", "lse"), found, expected, strict=True):
    one = np.asarray(one, np.float64)
    assert np.isfinite(one[np.isfinite(other)]).all(), f"{message}: {side} is not finite"
    message = f"{message}: {side}"
    np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance, err_msg=message)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_oracle(name):
  case = CASES[name]
  given = inputs(case)
  expected = oracle.attention(**given)
  # bfloat16 rounds weights before they meet the values, and the result.
  tolerance = dict(float32=2e-6, bfloat16=2e-2)[case.dtype]
  close(attend(given, implementation="reference"), expected, tolerance, "reference")
  found = attend(given, implementation="xla", block_sizes=SMALL)
  close(found, expected, tolerance, "xla")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 40), min_size=2, max_size=2))
def test_any_tree_over_any_lengths(seed, lengths):
  arguments = inputs(Case("tree", lengths=(0, 21)), seed)
  arguments["lengths"] = jnp.asarray(lengths, jnp.int32)
  for name in ("cache_k", "cache_v"):
    arguments[name] = jnp.nan_to_num(arguments[name], nan=0.25)
  arrays = {name: x for name, x in arguments.items() if isinstance(x, jax.Array)}
  close(_any_tree(arrays), oracle.attention(**arguments), 2e-6, "xla")


@jax.jit
def _any_tree(arrays):
  rest = dict.fromkeys(("soft_cap", "scale", "window"))
  return frontier_attention(**arrays, **rest, implementation="xla", block_sizes=SMALL)


@pytest.mark.parametrize("lengths", [(0, 30), (127, 300), (250, 299)])
def test_the_default_reads_a_cache_in_blocks_or_at_once(lengths):
  case = Case("tree", entries=5, lengths=lengths, capacity=300, heads=4, kv_heads=2, width=128)
  given = inputs(case)
  close(attend(given), oracle.attention(**given), 4e-6, f"{lengths} of 300 slots")


@pytest.mark.parametrize(("entries", "loops"), [(16, False), (64, True)])
def test_short_rows_are_processed_at_once_however_many(entries, loops):
  """In blocks there would be one iteration per row, nearly all of it over padding."""
  given = inputs(Case("causal", entries=entries, lengths=None))
  arrays = {
    name: jax.ShapeDtypeStruct((1 << 14, *x.shape[1:]), x.dtype)
    for name, x in given.items()
    if isinstance(x, jax.Array)
  }
  program = jax.make_jaxpr(lambda arrays: frontier_attention(**given | arrays))(arrays)
  assert ("while[" in str(program)) == loops


def test_parts_over_disjoint_keys_merge_to_the_whole():
  given = inputs(Case("tree", entries=6, lengths=(7, 21)))
  no_cache = dict.fromkeys(("cache_k", "cache_v", "lengths", "page_table", "kv_scales"))
  nobody = dict(lo=given["hi"])  # the cache alone
  whole, fresh, cached = (
    attend(given | other, implementation="reference") for other in ({}, no_cache, nobody)
  )
  found = jax.jit(merged)(*(np.stack(x) for x in zip(fresh, cached, strict=True)))
  close(found, [np.asarray(x, np.float64) for x in whole], 2e-6, "merged")


REFUSED = {
  "k .* and v .* must be": dict(v=jnp.zeros((2, 2, 5, 8))),
  "3 query heads do not divide among 2": dict(q=jnp.zeros((2, 6, 3, 8))),
  "stamp .* must be": dict(stamp=jnp.zeros((2, 6), jnp.int32)),
  "must be given together, or none": dict(cache_v=None),
  "cache .* must be .B, G, S, D.": dict(cache_k=jnp.zeros((2, 2, 40, 9))),
  "cache_v .* the shape of cache_k": dict(cache_v=jnp.zeros((2, 2, 41, 8))),
  "page_table .* must be": dict(page_table=jnp.zeros((3, 4), jnp.int32)),
  "pages .* must be .P, G, page, D.": dict(
    cache_k=jnp.zeros((9, 3, 8, 8)), page_table=jnp.zeros((2, 4), jnp.int32)
  ),
  "an 8-bit cache, and no other, needs kv_scales": dict(kv_scales=(jnp.ones((2, 2, 40)),) * 2),
  "kv_scales .* one per key and head": dict(
    cache_k=jnp.zeros((2, 2, 40, 8), jnp.int8),
    cache_v=jnp.zeros((2, 2, 40, 8), jnp.int8),
    kv_scales=(jnp.ones((2, 40)),) * 2,
  ),
  "window must be at least 1, got 0": dict(window=0),
  "a window goes by position": dict(window=3),
  "cache_position .* must be": dict(
    window=3, position=jnp.zeros((2, 6), jnp.int32), cache_position=jnp.zeros((2, 39), jnp.int32)
  ),
  "position .* must be .B=2, T=6.": dict(window=3, position=jnp.zeros((2, 7), jnp.int32)),
  "block_sizes must be at least 1": dict(block_sizes=(0, 4)),
  "unknown implementation 'cuda'; there are: reference, xla, tpu, tpu_interpret": dict(
    implementation="cuda"
  ),
  "the TPU kernel needs heads of a multiple of 16 dimensions, not 8": dict(implementation="tpu"),
  "page_table belongs to a cache, but there is no cache": dict(
    cache_k=None, cache_v=None, lengths=None, page_table=jnp.zeros((2, 4), jnp.int32)
  ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused(message):
  given = inputs(Case("tree", entries=6))
  with pytest.raises(ValueError, match=message):
    frontier_attention(**given | REFUSED[message])


def test_the_default_says_why():
  q, k = jnp.zeros((1, 4, 8, 128), jnp.bfloat16), jnp.zeros((1, 2, 4, 128), jnp.bfloat16)
  assert chosen(q, k) == ("xla", "blocks in XLA: there is no kernel for cpu")
  device = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
  with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
    assert chosen(q, k) == ("tpu", "the TPU kernel")
    few = chosen(q[..., :72], k[..., :72])
    assert few.name == "xla" and "heads of a multiple of 16 dimensions, not 72" in few.reason
    pages = Cache(*(jnp.zeros((9, 2, 24, 128), jnp.int8),) * 2, jnp.zeros(1), jnp.zeros((1, 4)))
    assert "a multiple of 32 slots in int8, not 24" in chosen(q, k, pages).reason
    narrow = q[..., :80], k[..., :80]
    assert chosen(*narrow, _zeros((9, 2, 256, 80), pages=4)).name == "tpu"
    assert "pages of a multiple of 128 slots for heads of 80 dimensions, not 64: it would copy" in (
      chosen(*narrow, _zeros((9, 2, 64, 80), pages=4)).reason
    )
    assert "rows of a multiple of 128 slots" in chosen(*narrow, _zeros((1, 2, 1000, 80))).reason
    long = pages._replace(
      **{n: jnp.zeros((1, 2, 32, 128)) for n in "kv"}, table=jnp.zeros((1, 50_000))
    )
    assert "up to 40,000 blocks, and here may be 50,001" in chosen(q, k, long).reason
    assert "not float16" in chosen(q.astype(jnp.float16), k).reason


def _zeros(shape, pages=None):
  k = jnp.zeros(shape, jnp.bfloat16)
  table = None if pages is None else jnp.zeros((1, pages), jnp.int32)
  return Cache(k, k, jnp.zeros(1, jnp.int32), table)
