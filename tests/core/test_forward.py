"""The equivalences that the design rests on: one forward pass serves every method of decoding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as builders
from mtjax.cache import KVCache
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.types import LayerKV
from tests.compiled import Compiled

F = Compiled(builders)
TOLERANCE = 2e-5


def _tokens(seed, *shape, vocab=48):
  return np.random.default_rng(seed).integers(0, vocab, shape)


def _close(one, other, message=""):
  np.testing.assert_allclose(one, other, atol=TOLERANCE, rtol=0, err_msg=message)


def _commit(cache, output, entries, count):
  return _append(cache, output.kv, entries.position, jnp.asarray(count))


@jax.jit
def _append(cache, kv, position, count):
  path = jnp.broadcast_to(jnp.arange(position.shape[1]), position.shape)
  return cache.commit(kv, position, path, count)


def test_step_by_step_equals_one_causal_frontier(tiny):
  model, params, forward = tiny
  tokens = _tokens(1, 2, 9)
  whole = np.asarray(forward(params, F.causal(tokens)).logits)
  cache = model.allocate(2, 12)
  for step in range(9):
    frontier = F.causal(tokens[:, step : step + 1], start=cache.length)
    output = forward(params, frontier, cache)
    _close(np.asarray(output.logits)[:, 0], whole[:, step], f"step {step}")
    cache = _commit(cache, output, frontier, [1, 1])


def test_ragged_prefix_in_the_cache_and_the_rest(tiny):
  model, params, forward = tiny
  tokens, lengths = _tokens(2, 2, 9), np.array([6, 3])
  whole = np.asarray(forward(params, F.causal(tokens)).logits)
  prefix = F.causal(tokens[:, :6], length=jnp.asarray(lengths))
  cache = _commit(model.allocate(2, 12), forward(params, prefix), prefix, lengths)
  rest = np.stack([tokens[row, n : n + 3] for row, n in enumerate(lengths)])
  output = forward(params, F.causal(rest, start=cache.length), cache)
  for row, n in enumerate(lengths):
    _close(np.asarray(output.logits)[row], whole[row, n : n + 3])


@pytest.mark.parametrize("seed", [0, 1])
def test_tree_logits_equal_each_root_path_run_alone(tiny, seed):
  model, params, forward = tiny
  rng = np.random.default_rng(seed)
  parent = np.array([-1] + [rng.integers(-1, node) for node in range(1, 9)])
  prompt, nodes = _tokens(3, 1, 5), _tokens(4, 1, 9)
  prefix = F.causal(prompt)
  cache = _commit(model.allocate(1, 12), forward(params, prefix), prefix, [5])
  tree = np.asarray(forward(params, F.tree(nodes, parent[None], start=5), cache).logits)
  for leaf in range(9):
    path, up = [], leaf
    while up >= 0:
      path.append(up)
      up = parent[up]
    path = path[::-1]
    alone = np.concatenate([prompt, nodes[:, path]], axis=1)
    # Padded to one length, so that all leaves share a compilation.
    alone = np.pad(alone, ((0, 0), (0, 14 - alone.shape[1])))
    logits = np.asarray(forward(params, F.causal(alone)).logits)
    _close(tree[0, path], logits[0, 5 : 5 + len(path)], f"leaf {leaf}")


def test_committing_a_tree_path_equals_running_it(tiny):
  model, params, forward = tiny
  prompt, nodes = _tokens(5, 2, 4), _tokens(6, 2, 6)
  parent = jnp.array([[-1, 0, 0, 2, 2, 4]] * 2)
  prefix = F.causal(prompt)
  cache = _commit(model.allocate(2, 16), forward(params, prefix), prefix, [4, 4])
  tree = F.tree(nodes, parent, start=cache.length)
  output = forward(params, tree, cache)
  path = jnp.array([[0, 2, 4, 5], [0, 1, 0, 0]])
  cache = jax.jit(KVCache.commit)(cache, output.kv, tree.position, path, jnp.array([4, 2]))
  np.testing.assert_array_equal(cache.length, [8, 6])
  last = _tokens(7, 2, 1)
  after = np.asarray(forward(params, F.causal(last, start=cache.length), cache).logits)
  for row, nodes_kept in enumerate(([0, 2, 4, 5], [0, 1])):
    text = np.concatenate([prompt[row], nodes[row, nodes_kept], last[row]])
    text = np.pad(text, (0, 9 - len(text)))[None]
    at = 4 + len(nodes_kept)
    _close(after[row, 0], np.asarray(forward(params, F.causal(text)).logits)[0, at])


def test_query_stream_equals_running_each_prefix_alone(tiny):
  model, params, forward = tiny
  size = 7
  tokens = _tokens(8, 1, size)
  order = np.random.default_rng(0).permutation(size)
  rank = np.empty(size, int)
  rank[order] = np.arange(size)
  query = np.full((1, size), 48)  # the first extra embedding
  streams = F.two_stream(tokens, query, np.arange(size)[None], rank[None])
  queries = np.asarray(forward(params, streams).logits)[0, size:]
  for step in range(size):
    # The decided entries alone, committed, then the one query: later ones are absent, not masked.
    # Padding keeps the frontier at one size, so that there is one compilation.
    known = np.sort(order[:step])
    filled = [np.pad(x[known], (0, size - step))[None] for x in (tokens[0], np.arange(size), rank)]
    alone = F.content(*filled, valid=np.arange(size)[None] < step)
    cache = _commit(model.allocate(1, size), forward(params, alone), alone, [step])
    target = F.query(query[:, :1], order[None, step : step + 1], np.array([[step]]))
    logits = np.asarray(forward(params, target, cache).logits)
    _close(queries[order[step]], logits[0, 0], f"rank {step}")


def test_block_diffusion_frontier_equals_a_dense_mask(tiny):
  model, params, forward = tiny
  size, width = 8, 4
  noisy, clean = _tokens(9, 1, size), _tokens(10, 1, size)
  block = np.arange(size)[None] // width
  both = np.asarray(forward(params, F.block_diffusion(noisy, clean, block)).logits)[0]
  # Block 1 of the noisy half is a canvas over the clean first block, committed.
  first = F.bidirectional(clean[:, :width])
  cache = _commit(model.allocate(1, 8), forward(params, first), first, [width])
  canvas = F.bidirectional(noisy[:, width:], start=width)
  _close(both[None, width:size], forward(params, canvas, cache).logits)
  _close(both[None, :width], forward(params, F.bidirectional(noisy[:, :width])).logits)


def test_packed_documents_equal_each_alone(tiny):
  _, params, forward = tiny
  tokens = _tokens(11, 1, 9)
  document = jnp.array([[1] * 4 + [2] * 5])
  logits = np.asarray(forward(params, F.packed(tokens, document)).logits)[0]
  second = np.pad(tokens[:, 4:], ((0, 0), (0, 4)))
  _close(logits[:4], np.asarray(forward(params, F.causal(tokens)).logits)[0, :4])
  _close(logits[4:], np.asarray(forward(params, F.causal(second)).logits)[0, :5])


def test_unused_slots_may_hold_anything(tiny):
  model, params, forward = tiny
  tokens = _tokens(12, 2, 6)
  lengths = jnp.array([6, 4])
  prefix = F.causal(tokens, length=lengths)
  poison = model.allocate(2, 9)
  nan = np.full_like(poison.layers[0].k, np.nan)
  poison = poison.replace(layers=tuple(LayerKV(nan, nan) for _ in poison.layers))
  output = forward(params, prefix)
  clean = _commit(model.allocate(2, 9), output, prefix, lengths)
  poisoned = _commit(poison, output, prefix, lengths)
  assert np.isnan(np.asarray(poisoned.layers[0].k)[1, :, 4:]).all(), "commit wrote past the count"
  step = F.causal(_tokens(13, 2, 2), start=lengths)
  _close(forward(params, step, poisoned).logits, forward(params, step, clean).logits)


def test_commit_never_overwrites_what_is_committed(tiny):
  model, params, forward = tiny
  prefix = F.causal(_tokens(14, 1, 6))
  output = forward(params, prefix)
  cache = _commit(model.allocate(1, 7), output, prefix, [6])
  path = np.arange(6)[None]
  commit = jax.jit(KVCache.commit)
  full = commit(cache, output.kv, prefix.position, path, jnp.array([4]))
  kept, before = (np.asarray(x.layers[0].k)[:, :, :6] for x in (full, cache))
  np.testing.assert_array_equal(kept, before)
  one = commit(full, output.kv, prefix.position, path[:, :1], jnp.array([1]))
  np.testing.assert_array_equal(one.layers[0].k, full.layers[0].k)


def test_logits_of_chosen_entries_alone(tiny):
  model, params, forward = tiny
  frontier = F.causal(_tokens(15, 2, 8))
  rows = np.array([[7, 0], [3, 3]])
  some = forward(params, frontier, None, rows)
  whole = forward(params, frontier)
  for part, all_ in ((some.logits, whole.logits), (some.features, whole.features)):
    _close(part, np.take_along_axis(np.asarray(all_), rows[:, :, None], axis=1))
  for part, all_ in zip(some.kv, whole.kv, strict=True):
    _close(part.k, all_.k)
  none = forward(params, frontier, None, np.zeros((2, 0), np.int32))
  assert none.logits.shape == (2, 0, 48) and none.features.shape == (2, 8, 24)
  # The head and the last layer's output projection and MLP must be computed for these entries, not
  # for all of them and then gathered.
  big = jax.jit(model.forward).lower(params, frontier, None, rows[:, :1]).compile()
  full = jax.jit(model.forward).lower(params, frontier).compile()
  saved = full.cost_analysis()["flops"] - big.cost_analysis()["flops"]
  c = model.config
  each = c.dim * (c.vocab_size + c.heads * c.head_dim + (3 if c.mlp == "gated" else 2) * c.mlp_dim)
  assert saved > 0.9 * 2 * (2 * 7) * each, f"only {saved} flops saved"


def test_features_are_the_input_of_the_head(tiny):
  _, params, forward = tiny
  output = forward(params, F.causal(_tokens(16, 1, 4)))
  table = np.asarray(params["embedding"]["table"])
  _close(output.logits, np.asarray(output.features) @ table.T)


def test_refusals_come_before_compilation(tiny):
  model, params, forward = tiny
  with pytest.raises(ValueError, match="the cache has 2 rows, but the frontier has 1"):
    model.forward(params, F.causal(_tokens(0, 1, 3)), model.allocate(2, 4))
  with pytest.raises(ValueError, match="capacity of a cache must be at least 1, got 0"):
    model.allocate(1, 0)
  with pytest.raises(ValueError, match="cannot fit a cache of 4 slots"):
    frontier = F.causal(_tokens(0, 1, 5))
    _commit(model.allocate(1, 4), forward(params, frontier), frontier, [5])


def test_attention_by_name_is_what_computes_it(tiny):
  model, params, forward = tiny
  frontier = F.causal(_tokens(17, 1, 4))
  named = Model(dataclasses.replace(model.config, attention="tpu_interpret"))
  _close(jax.jit(named.forward)(params, frontier).logits, forward(params, frontier).logits)
  named = Model(dataclasses.replace(model.config, attention="gpu"))
  with pytest.raises(ValueError, match="the GPU kernel computes in float16 or bfloat16"):
    named.forward(params, frontier)


@pytest.mark.ill_typed
@pytest.mark.parametrize(
  "field", ["attention", "remat", "norm", "norm_placement", "qk_norm", "mlp", "dtype"]
)
def test_a_misspelt_choice_is_refused(field):
  sizes = dict(vocab_size=4, dim=4, heads=1, kv_heads=1, head_dim=4, mlp_dim=4)
  with pytest.raises(ValueError, match=f"{field} must be one of .*, got 'Nonsense'"):
    TransformerConfig(layers=uniform_layers(1), **sizes, **{field: "Nonsense"})


def test_logits_of_an_untied_head_are_not_rounded_to_the_activations_dtype():
  sizes = dict(vocab_size=512, dim=16, heads=1, kv_heads=1, head_dim=16, mlp_dim=16)
  model = Model(TransformerConfig(layers=uniform_layers(1), tied=False, dtype="bfloat16", **sizes))
  params = jax.jit(model.init)(jax.random.key(0))
  logits = jax.jit(model.forward)(params, F.causal(jnp.array([[1]]))).logits
  assert np.any(logits != logits.astype(jnp.bfloat16).astype(jnp.float32))
