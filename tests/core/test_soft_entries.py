"""Entries that are vectors in place of tokens: read, committed and differentiated as rows are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as builders
from mtjax.cache import KVCache
from mtjax.models import Model, TransformerConfig, XLNetConfig, transformer, uniform_layers, xlnet

TEXT = jnp.array([[4, 1, 5, 2, 0, 6], [0, 3, 6, 1, 4, 2]])
SOFT = jnp.array([[0, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 1]], bool)
CONFIGS = {
  # Whatever is done to a row of the table must be done to a vector.
  "scaled": TransformerConfig(
    vocab_size=7,
    dim=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    mlp_dim=24,
    layers=uniform_layers(2),
    embedding_scale=4.0,
    learned_positions=16,
    extra_embeddings=1,
    tied=False,
  ),
  "xlnet": XLNetConfig(vocab_size=7, dim=16, heads=2, head_dim=8, mlp_dim=24, depth=2, tied=False),
}


@pytest.fixture(scope="module", params=CONFIGS)
def network(request):
  """Returns (model, params, jitted forward)."""
  model = Model(CONFIGS[request.param])
  params = model.init(jax.random.key(0))
  params = jax.tree.map(lambda x: x * 5 if x.ndim == 2 else x, params)
  return model, params, jax.jit(model.forward)


def softened(params, text, soft, start=0):
  """Returns the text as a frontier with the table's rows where it is soft.

  Tokens of soft entries and vectors of the others are nonsense, because nothing may read them.
  """
  rows = params["embedding"]["table"][text]
  vector = jnp.where(soft[..., None], rows, 1e3)
  frontier = builders.causal(jnp.where(soft, 9, text), start=start)
  return builders.with_vectors(frontier, vector, soft)


def alike(one, other):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6), one, other)


def test_a_vector_that_is_a_row_of_the_table_is_that_token(network):
  model, params, forward = network
  output = forward(params, softened(params, TEXT, SOFT))
  alike(output, forward(params, builders.causal(TEXT)))
  everywhere = builders.with_vectors(
    builders.causal(jnp.zeros_like(TEXT)), params["embedding"]["table"][TEXT]
  )
  alike(forward(params, everywhere), output)
  # It matters what the vectors hold.
  other = everywhere.replace(vector=everywhere.vector.at[0, 0].add(1.0))
  assert np.abs(forward(params, other).logits - output.logits).max() > 1e-2


def test_vectors_are_committed_and_continued_like_tokens(network):
  model, params, forward = network
  path, four = jnp.broadcast_to(jnp.arange(4), (2, 4)), jnp.array([4, 4])
  commit, caches = jax.jit(KVCache.commit), {}
  for kind in ("tokens", "vectors"):
    cache = model.allocate(2, 8)
    frontier = builders.causal(TEXT[:, :4])
    if kind == "vectors":
      frontier = softened(params, TEXT[:, :4], SOFT[:, :4])
    kv = forward(params, frontier, cache).kv
    caches[kind] = commit(cache, kv, frontier.position, path, four)
  alike(caches["vectors"], caches["tokens"])
  rest = builders.causal(TEXT[:, 4:], start=4)
  expected = forward(params, rest, caches["tokens"])
  alike(forward(params, rest, caches["vectors"]), expected)
  soft_rest = softened(params, TEXT[:, 4:], SOFT[:, 4:], start=4)
  alike(forward(params, soft_rest, caches["vectors"]), expected)


def test_layers_above_the_first_read_no_vectors(network):
  model, params, forward = network
  frontier = softened(params, TEXT, SOFT)
  segment = jax.jit(model.segment, static_argnames=("first", "last"))
  _, hidden = segment(params, frontier, first=0, last=1)
  output, _ = segment(params, frontier, first=1, last=2, hidden=hidden)
  # Two segments are other programs than the whole: logits near 10 differ in their last places. A
  # vector that is read again would differ in the first.
  whole = forward(params, frontier).logits
  np.testing.assert_allclose(output.logits, whole, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_vector_is_that_of_the_row_it_stands_for(network):
  model, params, _ = network
  weight = np.random.default_rng(0).normal(size=(1, 6, 7))
  text, at = TEXT[:1], 1  # token 1 stands there and nowhere else
  soft = jnp.arange(6)[None] == at

  def of_vector(vector):
    frontier = builders.with_vectors(builders.causal(text), vector, soft)
    return jnp.sum(model.forward(params, frontier).logits * weight)

  def of_table(table):
    changed = params | {"embedding": {"table": table}}
    return jnp.sum(model.forward(changed, builders.causal(text)).logits * weight)

  table = params["embedding"]["table"]
  value = jax.jit(of_vector)
  gradient = np.asarray(jax.jit(jax.grad(of_vector))(table[text]))
  expected = np.asarray(jax.jit(jax.grad(of_table))(table))[text[0, at]]
  atol = 1e-5 * np.abs(expected).max()
  np.testing.assert_allclose(gradient[0, at], expected, rtol=1e-5, atol=atol)
  assert np.abs(expected).max() > 1e-2 and not gradient[~soft].any()
  # The number with the largest slope, by central differences.
  number, step = int(np.argmax(np.abs(expected))), 1e-2
  up, down = (value(table[text].at[0, at, number].add(x)) for x in (step, -step))
  np.testing.assert_allclose((up - down) / (2 * step), expected[number], rtol=1e-2)


def test_a_frontier_without_vectors_has_the_program_that_it_had(network, monkeypatch):
  """The code for vectors leaves no trace: without it, the program is the same."""
  model, params, _ = network
  plain = builders.causal(TEXT)
  assert len(jax.tree.leaves(plain)) == 5

  def program(frontier):
    return str(jax.make_jaxpr(lambda p, f: model.forward(p, f))(params, frontier))

  before, soft = program(plain), program(softened(params, TEXT, SOFT))
  for module in (transformer, xlnet):
    monkeypatch.setattr(module, "with_soft_entries", lambda rows, frontier: rows)
  assert program(plain) == before != soft


def test_builders_and_joins_keep_the_vectors():
  one = builders.with_vectors(builders.causal(TEXT), jnp.ones((2, 6, 3)), SOFT)
  plain = builders.causal(TEXT[:, :2])
  joined = builders.concatenate(plain, one, plain)
  np.testing.assert_array_equal(joined.soft, np.pad(SOFT, ((0, 0), (2, 2))))
  np.testing.assert_array_equal(joined.vector, np.pad(one.vector, ((0, 0), (2, 2), (0, 0))))
  assert builders.concatenate(plain, plain).vector is None
  both = builders.both(one, builders.block_local(one.token, TEXT))
  assert both.vector is one.vector and both.soft is one.soft
  wide = builders.with_vectors(plain, jnp.ones((2, 2, 4)))
  with pytest.raises(ValueError, match=r"vectors of different widths, \[3, 4\]"):
    builders.concatenate(one, wide)


FLOATS = jnp.zeros((2, 6, 16))


@pytest.mark.ill_typed
@pytest.mark.parametrize(
  ("vector", "soft", "message"),
  [
    (FLOATS[:, :5], SOFT, r"`vector` must have the shape \(2, 6, .*\), got \(2, 5, 16\)"),
    (FLOATS[0], SOFT, r"`vector` must have the shape \(2, 6, .*\), got \(6, 16\)"),
    (FLOATS.astype(int), SOFT, "`vector` must hold floats, got int"),
    (FLOATS, SOFT[:, :5], r"`soft` must be bool of shape \(2, 6\), got bool of \(2, 5\)"),
    (FLOATS, SOFT.astype(int), r"`soft` must be bool of shape \(2, 6\), got int"),
    (FLOATS[..., :15], SOFT, "vectors of width 15, and the model's embeddings have 16"),
    (FLOATS, None, "both `vector` and `soft` or neither"),
    (None, SOFT, "both `vector` and `soft` or neither"),
  ],
)
def test_vectors_that_do_not_fit_are_refused_before_anything_is_traced(
  network, monkeypatch, vector, soft, message
):
  model, params, _ = network
  monkeypatch.setattr(Model, "_network", None)
  frontier = builders.causal(TEXT).replace(vector=vector, soft=soft)
  with pytest.raises(ValueError, match=message):
    model.forward(params, frontier)
  if vector is not None and soft is not None and "width" not in message:
    with pytest.raises(ValueError, match=message):
      builders.with_vectors(builders.causal(TEXT), vector, soft)


def test_a_model_of_low_precision_reads_vectors_of_any(network):
  model, params, _ = network
  half = Model(dataclasses.replace(model.config, dtype="bfloat16"))
  forward = jax.jit(half.forward)
  expected = forward(params, builders.causal(TEXT)).logits
  np.testing.assert_array_equal(forward(params, softened(params, TEXT, SOFT)).logits, expected)
