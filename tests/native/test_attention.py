"""Native attention against the oracle, the same bits for any other rows, and where it applies."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as F
from mtjax.models import Layer, Model, TransformerConfig
from mtjax.models.attention import attention, bound
from mtjax.models.packed_attention import packed_attention, why_not
from mtjax.models.quantize import pack
from mtjax.models.stacking import Stacks, scanned, unrolled
from mtjax.native import build
from mtjax.native.attention import native_attention
from tests.kernels import oracle
from tests.kernels.cases import Case, inputs

# The block has 48 slots: none, one that is not full, several and a rest, and all of the capacity.
LENGTHS = dict(lengths=(0, 21, 101, 110), capacity=110)


def compute(case_inputs):
  """Returns the native result; arrays are arguments, for a constant would be compiled in."""
  arrays = {name: x for name, x in case_inputs.items() if isinstance(x, jax.Array)}
  rest = {name: x for name, x in case_inputs.items() if name not in arrays}
  return jax.jit(lambda arrays: packed_attention(**arrays, **rest))(arrays)


def check(x, result):
  assert why_not(bound((), x)) is None
  for mine, exact in zip(result, oracle.attention(**x), strict=True):
    np.testing.assert_allclose(mine, exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("mask", ["tree", "two_stream", "nobody", "hidden", "own", "invalid_tree"])
def test_masks(native, mask):
  x = inputs(Case(mask, width=16, scale=0.2, **LENGTHS))
  result = compute(x)
  check(x, result)
  if mask == "nobody":
    out, lse = result
    assert np.all(out[0] == 0) and np.all(np.isneginf(lse[0]))


@pytest.mark.parametrize("width", [32, 64, 80, 128])
@pytest.mark.parametrize("group", [1, 3])
def test_widths_and_groups(native, width, group):
  x = inputs(Case("tree", width=width, kv_heads=2, heads=2 * group, **LENGTHS))
  check(x, compute(x))


def test_more_entries_than_a_tile_and_a_block(native):
  x = inputs(Case("two_stream", entries=70, width=32, kv_heads=1, heads=3, lengths=(5, 0)))
  check(x, compute(x))


def test_the_check_notices(native):
  x = inputs(Case("tree", width=32, **LENGTHS))
  out, lse = compute(x | dict(lengths=x["lengths"] - (x["lengths"] == 110)))
  with pytest.raises(AssertionError):
    check(x, (out, lse))


@pytest.mark.parametrize("layer", [0, 2])
def test_a_layer_of_a_stack_is_read_in_place(native, layer):
  x = inputs(Case("tree", width=32, **LENGTHS))
  want = compute(x)
  stacked = {}
  for name in ("cache_k", "cache_v"):
    other = jnp.full_like(x[name], jnp.nan)
    layers = [x[name] if i == layer else other for i in range(3)]
    stacked[name] = jnp.concatenate(layers, axis=1)
  first = jnp.int32(2 * layer)
  for mine, theirs in zip(compute(x | stacked | dict(first_head=first)), want, strict=True):
    np.testing.assert_array_equal(mine, theirs)


def test_exp_is_within_two_units_in_the_last_place(native):
  """The outputs are the weights themselves, because the values are unit vectors.

  The first score of each row is 0. No weight is below the normal numbers, which XLA's threads
  replace by 0.
  """
  rows, D = 4000, 16
  scores = -np.random.default_rng(0).uniform(0, 84, (rows, D)).astype(np.float32)
  scores[:, 0] = 0
  scores[:8, 1:6] = -1e-30, -1e-9, -0.34657357, -0.3465736, -84
  q = jnp.zeros((rows, 1, 1, D)).at[..., 0].set(1)
  keys = jnp.zeros((rows, 1, D, D)).at[:, 0, :, 0].set(scores)
  values = jnp.broadcast_to(jnp.eye(D), keys.shape)
  nothing, nobody = jnp.zeros((rows, 1, 1, D)), jnp.zeros((rows, 1, 1), bool)
  out, _ = _native(q, keys, values, jnp.full(rows, D), 0, nothing, nothing, nobody, 1.0)
  weights = np.asarray(out[:, 0, 0], np.float64)
  # Each of the two divisions by the sum adds half a unit.
  want = np.exp(scores.astype(np.float64))
  np.testing.assert_allclose(weights / weights[:, :1], want, rtol=3 * 2.0**-23, atol=0)


def test_the_weight_of_a_far_lower_score_is_zero(native):
  q, k = jnp.ones((1, 1, 1, 16)), jnp.zeros((1, 1, 2, 16)).at[0, 0, 1].set(-30)
  v, fresh = jnp.ones((1, 1, 2, 16)), jnp.zeros((1, 1, 1, 16))
  nobody = jnp.zeros((1, 1, 1), bool)
  out, lse = _native(q, k, v.at[0, 0, 1].set(1e38), jnp.asarray([2]), 0, fresh, fresh, nobody, 1.0)
  assert np.all(out == 1) and np.all(lse == 0)


_native = jax.jit(native_attention)


def plain(batch, entries, heads=6, kv_heads=2, width=32, slots=120):
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
  q, k, v = normal(batch, entries, heads, width), *normal(2, batch, kv_heads, entries, width)
  cache_k, cache_v = normal(2, batch, kv_heads, slots, width)
  lengths = jnp.asarray(rng.integers(40, slots, batch), jnp.int32)
  seen = jnp.broadcast_to(jnp.tril(jnp.ones((entries, entries), bool)), (batch, entries, entries))
  return q, cache_k, cache_v, lengths, 0, k, v, seen, 0.3


def test_the_bits_do_not_depend_on_other_rows_entries_and_threads(native):
  q, cache_k, cache_v, lengths, first, k, v, seen, scale = plain(3, 70)
  before = build.threads()
  try:
    build.set_threads(1)
    out, lse = _native(q, cache_k, cache_v, lengths, first, k, v, seen, scale)
    for threads in (2, 3):
      build.set_threads(threads)
      again = _native(q, cache_k, cache_v, lengths, first, k, v, seen, scale)
      np.testing.assert_array_equal(again[0], out)
      np.testing.assert_array_equal(again[1], lse)
  finally:
    build.set_threads(before)
  for n in (1, 2, 5, 8, 33):
    fresh = k[:, :, :n], v[:, :, :n], seen[:, :n, :n]
    some = _native(q[:, :n], cache_k, cache_v, lengths, first, *fresh, scale)
    np.testing.assert_array_equal(some[0], out[:, :n])
    np.testing.assert_array_equal(some[1], lse[:, :n])
  for b in range(3):
    rows = [x[b : b + 1] for x in (q, cache_k, cache_v, lengths, k, v, seen)]
    alone = _native(*rows[:4], first, *rows[4:], scale)
    np.testing.assert_array_equal(alone[0], out[b : b + 1])


def test_vmap_is_the_same_row_by_row(native):
  arguments = plain(3, 4)
  want, _ = _native(*arguments)
  axes = [0 if isinstance(x, jax.Array) else None for x in arguments]
  rows = [x[:, None] if isinstance(x, jax.Array) else x for x in arguments]
  out, _ = jax.jit(jax.vmap(native_attention, axes))(*rows)
  np.testing.assert_array_equal(out[:, 0], want)


def test_nan_that_is_visible_stays_in_its_row(native):
  q, *rest = plain(2, 3)
  out, _ = _native(q, *rest)
  spoilt, _ = _native(q.at[0, 1].set(jnp.nan), *rest)
  assert np.isnan(spoilt[0, 1]).all()
  np.testing.assert_array_equal(spoilt.at[0, 1].set(0), out.at[0, 1].set(0))


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    (dict(window=4), "no window"),
    (dict(soft_cap=5.0), "no soft_cap"),
    (dict(dtype="bfloat16"), "float32, not bfloat16"),
    (dict(page=10), "no page_table"),
    (dict(cache_dtype="int8"), "no kv_scales"),
    (dict(lengths=None), "no cache"),
    (dict(width=8), "multiples of 16"),
    (dict(entries=258), "256 entries"),
  ],
)
def test_everything_else_is_computed_as_before(native, change, reason):
  x = inputs(dataclasses.replace(Case("tree", width=16), **change))
  assert reason in why_not(bound((), x))
  assert calls(lambda: packed_attention(**x)) == 0
  if "entries" not in change:
    for mine, theirs in zip(packed_attention(**x), attention(**x), strict=True):
      np.testing.assert_array_equal(mine, theirs)


def test_without_native_code_and_on_a_mesh_it_is_computed_as_before(native, monkeypatch):
  x = inputs(Case("tree", width=16))
  with jax.set_mesh(jax.make_mesh((1,), ("data",))):
    assert why_not(bound((), x)) == "it is for one CPU"
  assert "implementation is xla" in why_not(bound((), x | dict(implementation="xla")))
  monkeypatch.setattr(build, "unavailable", lambda: "there is no compiler")
  assert why_not(bound((), x)) == "there is no compiler"
  assert calls(lambda: packed_attention(**x)) == 0


def calls(function, *arguments) -> int:
  """Returns how many native attentions a function has; those in a scan count once."""
  return str(jax.make_jaxpr(function)(*arguments)).count(f"target_name={build.ATTENTION}")


@pytest.mark.parametrize("layers", ["unrolled", "scanned"])
def test_a_packed_model_writes_the_same_text(native, layers):
  config = TransformerConfig(
    vocab_size=31, dim=32, heads=4, kv_heads=2, head_dim=16, mlp_dim=24, layers=(Layer(),) * 3
  )
  model = Model(config)
  params = model.init(jax.random.key(1))
  decoding = Model(scanned(config)) if layers == "scanned" else model
  packed = pack(params, Stacks.of(decoding.config))
  prompt = F.causal(jnp.asarray([[3, 1, 4, 1, 5]]))
  path = jnp.arange(5)[None]

  def text(model):
    def step(params, token, cache):
      frontier = F.causal(token[:, None], start=cache.length)
      out = model.forward(params, frontier, cache)
      cache = cache.commit(out.kv, frontier.position, path[:, :1], jnp.asarray([1]))
      return jnp.argmax(out.logits[:, -1], -1), cache

    empty = model.allocate(1, 64)
    out = model.forward(packed, prompt, empty)
    cache = empty.commit(out.kv, prompt.position, path, jnp.asarray([5]))
    token, tokens, one = jnp.argmax(out.logits[:, -1], -1), [], jax.jit(step)
    count = calls(step, packed, token, cache)
    for _ in range(20):
      tokens.append(int(token[0]))
      token, cache = one(packed, token, cache)
    return count, tokens, np.asarray(model.forward(packed, prompt, cache).logits)

  count, tokens, logits = text(decoding)
  assert count == (1 if layers == "scanned" else 3)
  count, other, exact = text(Model(dataclasses.replace(decoding.config, attention="xla")))
  assert count == 0
  assert tokens == other and len(set(tokens)) > 1
  np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("predicts, size, passes", [("next_token", 1, 1), ("masked", 2, 2)])
def test_a_loop_of_a_packed_model_copies_no_cache(native, predicts, size, passes):
  """The last layer of the masked one is apart from the scan: it reads the cache after it."""
  config = scanned(
    TransformerConfig(
      vocab_size=31, dim=32, heads=2, kv_heads=1, head_dim=16, mlp_dim=24, layers=(Layer(),) * 2,
      predicts=predicts,
    )
  )  # fmt: skip
  model = Model(config)
  params = pack(Model(unrolled(config)).init(jax.random.key(1)), Stacks.of(config))
  cache, one = model.allocate(1, 8192), jnp.ones((1,), jnp.int32)

  def write(params, cache):
    def body(_, carry):
      token, cache = carry
      frontier = F.causal(jnp.tile(token[:, None], (1, size)), start=cache.length)
      out = model.forward(params, frontier, cache, jnp.zeros((1, 1), jnp.int32))
      cache = cache.commit(out.kv, frontier.position, jnp.zeros((1, 1), jnp.int32), one)
      return jnp.argmax(out.logits[:, -1], -1).astype(jnp.int32), cache

    return jax.lax.fori_loop(0, 5, body, (one, cache))

  program = jax.jit(write, donate_argnums=1).lower(params, cache).compile()
  assert calls(write, params, cache) == passes
  assert program.memory_analysis().temp_size_in_bytes < cache.layers[0].k.nbytes / 4


def test_an_unpacked_model_keeps_attention_with_its_gradient(native):
  config = TransformerConfig(
    vocab_size=31, dim=32, heads=4, kv_heads=2, head_dim=16, mlp_dim=24, layers=(Layer(),)
  )
  model = Model(config)
  params, cache = model.init(jax.random.key(1)), model.allocate(1, 16)
  frontier = F.causal(jnp.asarray([[3, 1]]), start=cache.length)
  total = lambda params: model.forward(params, frontier, cache).logits.sum()  # noqa: E731
  assert calls(total, params) == 0
  gradient = jax.jit(jax.grad(total))(params)["layer_0"]["attention"]["qkv"]["kernel"]
  assert np.isfinite(gradient).all() and np.any(gradient != 0)
  with pytest.raises(NotImplementedError, match="unpacked kernels"):
    jax.grad(total, allow_int=True)(pack(params))


@pytest.mark.parametrize(
  ("operands", "message"),
  [
    (dict(q=jnp.zeros((1, 2, 3, 16))), "shapes do not fit"),
    (dict(q=jnp.zeros((1, 2, 4, 24))), "shapes do not fit"),
    (dict(lengths=jnp.zeros(2, jnp.int32)), "shapes do not fit"),
    (dict(lengths=jnp.zeros(1)), "wrong type or rank"),
    (dict(first_head=jnp.zeros(1, jnp.int32)), "wrong type or rank"),
    (dict(seen=jnp.ones((1, 2, 3), bool)), "shapes do not fit"),
    (dict(cache_v=jnp.zeros((1, 2, 7, 16))), "shapes do not fit"),
    (dict(more=jnp.zeros(1)), "9 operands and 2 results"),
  ],
)
def test_the_compiled_code_checks_what_xla_hands_to_it(native, operands, message):
  cache, fresh = jnp.zeros((1, 2, 8, 16)), jnp.zeros((1, 2, 2, 16))
  whole = dict(
    q=jnp.zeros((1, 2, 4, 16)), cache_k=cache, cache_v=cache, lengths=jnp.zeros(1, jnp.int32),
    first_head=jnp.int32(0), k=fresh, v=fresh, seen=jnp.ones((1, 2, 2), bool),
    scale=jnp.float32(1),
  )  # fmt: skip
  shape = (1, 2, 4)
  out = jax.ShapeDtypeStruct((*shape, 16), jnp.float32), jax.ShapeDtypeStruct(shape, jnp.float32)
  call = jax.ffi.ffi_call(build.ATTENTION, out)
  jax.block_until_ready(call(*whole.values()))
  with pytest.raises(jax.errors.JaxRuntimeError, match=message):
    jax.block_until_ready(call(*(whole | operands).values()))
