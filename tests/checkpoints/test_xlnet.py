"""XLNet compared with transformers' `perm_mask` and `target_mapping`; its cache, and exports."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from mtjax import checkpoints
from mtjax import frontier as frontier_lib
from mtjax.anysubset import (
  DraftOnce,
  Fused,
  SelfDraft,
  Sequential,
  fill,
  log_likelihood,
  make_canvas,
)
from mtjax.anysubset.canvas import two_stream
from mtjax.anysubset.orders import random_order
from mtjax.checkpoints import families
from mtjax.models import Model, XLNetConfig, position_of, prefix_params, xlnet

VOCAB, SIZE, MASK = 50, 10, 6
SEEN = (0, 3, 5, 8)  # context; the others are targets, in ascending order
SEGMENT = np.array([0, 0, 0, 0, 2, 2, 2, 1, 1, 1])
TOLERANCE = 1e-4  # measured: 3e-6

needs_torch = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
  """Returns (a model of transformers with random weights, the folder it is saved in)."""
  import torch
  import transformers

  torch.manual_seed(0)
  config = transformers.XLNetConfig(
    vocab_size=VOCAB, d_model=32, n_layer=3, n_head=4, d_inner=64, dropout=0.0,
    initializer_range=0.3, mem_len=None, reuse_len=None,
  )  # fmt: skip
  model = transformers.XLNetLMHeadModel(config).eval()
  for name, parameter in model.named_parameters():
    if name.endswith("bias"):
      torch.nn.init.normal_(parameter, std=0.3)  # zeros would hide a lost one
  folder = tmp_path_factory.mktemp("xlnet")
  model.save_pretrained(folder)
  return model, folder


def texts():
  """Returns (tokens [2, L], rank [L], the target places in their order)."""
  token = np.random.default_rng(0).integers(10, VOCAB, (2, SIZE))
  is_target = np.array([i for i in range(SIZE) if i not in SEEN])
  rank = np.zeros(SIZE, int)
  rank[is_target] = np.arange(len(is_target)) + 1
  return token, rank, is_target


def theirs(model, token, banned, places, segment):
  """Returns logits of the content stream [B, L, V] and of queries at `places` [B, Q, V]."""
  import torch

  mask = torch.tensor(banned, dtype=torch.float32)[None].repeat(len(token), 1, 1)
  target = torch.zeros(len(token), len(places), SIZE)
  target[:, torch.arange(len(places)), torch.tensor(places)] = 1
  more = dict(perm_mask=mask)
  if segment is not None:
    more["token_type_ids"] = torch.tensor(segment)[None].repeat(len(token), 1)
  with torch.no_grad():
    content = model(torch.tensor(token), **more).logits
    query = model(torch.tensor(token), target_mapping=target, **more).logits
  return content.numpy(), query.numpy()


def two_streams(token, stamp, places, seen_by_queries, segment):
  """Returns contents that see ranks <= their own, and queries that see ranks below theirs."""
  batch = len(token)
  at = np.arange(SIZE) if segment is None else position_of(np.arange(SIZE), segment)
  position = jnp.broadcast_to(jnp.asarray(at), token.shape)
  index = jnp.broadcast_to(jnp.asarray(at[places]), (batch, len(places)))
  rank = jnp.broadcast_to(jnp.asarray(stamp, jnp.int32), token.shape)
  below = jnp.broadcast_to(jnp.asarray(seen_by_queries, jnp.int32), index.shape)
  contents = frontier_lib.content(jnp.asarray(token, jnp.int32), position, rank)
  queries = frontier_lib.query(jnp.full_like(index, VOCAB), index, below)
  return frontier_lib.concatenate(contents, queries)


def difference(oracle, kind, change=lambda frontier: frontier, segment=None):
  """Returns the largest difference of both streams' logits, for one of the masks."""
  model, folder = oracle
  token, rank, is_target = texts()
  if kind == "oracle":
    banned = rank[:, None] <= rank[None]
    below = rank[is_target]
  elif kind == "draft":
    # Two targets are decided. The others are hidden from all: every query sees the same entries.
    rank = np.where(rank > 2, SIZE, rank)
    token, is_target = np.where(rank == SIZE, MASK, token), is_target[2:]
    banned = (rank[:, None] <= rank[None]) | (rank == SIZE)[None]
    below = np.full(len(is_target), 3)
  else:
    rank, is_target = np.arange(SIZE) + 1, np.arange(1, SIZE)
    banned = np.triu(np.ones((SIZE, SIZE), bool))
    below = rank[is_target]
  both_context = (rank[:, None] == 0) & (rank[None] == 0)
  expected = theirs(model, token, banned & ~both_context, is_target, segment)
  ours, params = checkpoints.load(folder)
  frontier = two_streams(token, rank, is_target, below, segment)
  if kind == "draft":
    # An undecided content sees itself, as all do, and no other entry sees it.
    hidden = jnp.broadcast_to(jnp.asarray(rank == SIZE), token.shape)
    hidden = jnp.pad(hidden, ((0, 0), (0, len(is_target))))
    frontier = frontier.replace(hi=jnp.where(hidden[:, None], frontier.lo, frontier.hi), own=hidden)
  logits = np.asarray(jax.jit(ours.forward)(params, change(frontier)).logits)
  return max(
    np.abs(logits[:, :SIZE] - expected[0]).max(), np.abs(logits[:, SIZE:] - expected[1]).max()
  )


@needs_torch
@pytest.mark.parametrize("segment", [None, SEGMENT], ids=["one text", "segments"])
@pytest.mark.parametrize("kind", ["oracle", "draft", "plain"])
def test_both_streams_are_those_of_transformers(oracle, kind, segment):
  assert difference(oracle, kind, segment=segment) <= TOLERANCE


@needs_torch
def test_wrong_segments_are_noticed(oracle):
  def wrong(frontier):
    return frontier.replace(position=frontier.position % position_of(0, 1))

  assert difference(oracle, "oracle", wrong, SEGMENT) > 100 * TOLERANCE


def swapped(position, dim):
  return wave(position, dim)[::-1]


def backwards(position, dim):
  return wave(-position, dim)


wave = xlnet.sinusoids


@needs_torch
@pytest.mark.parametrize("wrong", [swapped, backwards])
def test_wrong_relative_positions_are_noticed(oracle, monkeypatch, wrong):
  monkeypatch.setattr(xlnet, "sinusoids", wrong)
  jax.clear_caches()
  assert difference(oracle, "oracle") > 100 * TOLERANCE
  jax.clear_caches()


@needs_torch
def test_a_query_that_sees_itself_is_noticed(oracle):
  def wrong(frontier):
    query = frontier.token == VOCAB
    return frontier.replace(own=query)

  assert difference(oracle, "oracle", wrong) > 100 * TOLERANCE


@needs_torch
def test_transformers_reads_what_we_write(oracle, tmp_path):
  import torch
  import transformers

  model, folder = oracle
  ours, params = checkpoints.load(folder)
  checkpoints.save(tmp_path, ours, params)
  again, same = checkpoints.load(tmp_path)
  assert again == ours
  jax.tree.map(np.testing.assert_array_equal, same, params)
  back = transformers.XLNetLMHeadModel.from_pretrained(tmp_path).eval()
  stored, result = model.state_dict(), back.state_dict()
  assert stored.keys() == result.keys()
  assert all(torch.equal(stored[name], result[name]) for name in stored)


def test_a_tied_head_that_is_stored_twice_is_ignored(tiny, tmp_path):
  model, params = tiny
  checkpoints.save(tmp_path, model, params)
  file = tmp_path / "model.safetensors"
  tensors = safetensors.load_file(file)
  table = tensors["transformer.word_embedding.weight"]
  safetensors.save_file({**tensors, "lm_loss.weight": table}, file)
  result, same = checkpoints.load(tmp_path)
  assert result == model
  jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.fixture(scope="module")
def tiny():
  model = Model(XLNetConfig(vocab_size=5, dim=16, heads=2, head_dim=8, mlp_dim=32, depth=2))
  params = model.init(jax.random.key(0))
  return model, jax.tree.map(lambda x: x * 3 if x.ndim == 2 else x, params)


def test_queries_that_share_a_position_are_independent(tiny):
  """In transformers they are added up."""
  model, params = tiny
  forward = jax.jit(model.forward)
  token = jnp.array([[1, 2, 3, 4]], jnp.int32)
  content = frontier_lib.content(token, jnp.arange(4)[None], jnp.array([[0, 1, 2, 3]]))

  def probs(*ranks):
    rank = jnp.array([ranks], jnp.int32)
    query = frontier_lib.query(jnp.full_like(rank, 5), jnp.full_like(rank, 3), rank)
    out = forward(params, frontier_lib.concatenate(content, query))
    return np.asarray(out.logits[0, 4:])

  both = probs(1, 3)
  np.testing.assert_allclose(both, [probs(1)[0], probs(3)[0]], atol=1e-5)
  assert np.abs(both[0] - both[1]).max() > 0.01


def test_a_query_that_sees_nothing_depends_on_nothing(tiny):
  """In transformers it sees everything."""
  model, params = tiny
  forward = jax.jit(model.forward)
  place = jnp.array([[2]])
  query = frontier_lib.query(jnp.full_like(place, 5), place, jnp.zeros_like(place))

  def probs(token):
    content = frontier_lib.content(jnp.asarray([token]), jnp.arange(3)[None], jnp.ones((1, 3), int))
    joint = frontier_lib.concatenate(content, query)
    return np.asarray(forward(params, joint).logits[0, 3])

  np.testing.assert_array_equal(probs([1, 2, 3]), probs([4, 0, 1]))


def test_commits_in_any_order_give_the_logits_of_one_dense_pass(tiny):
  model, params = tiny
  forward = jax.jit(model.forward)
  rng = np.random.default_rng(0)
  token, is_target = rng.integers(0, 5, (2, 9)), rng.random((2, 9)) < 0.6
  canvas = make_canvas(model.config, token, is_target, segment=rng.integers(0, 2, (2, 9)))
  position = np.asarray(canvas.position)
  assert position.max() > 9
  rank = random_order(canvas, jax.random.key(1))
  dense = forward(
    params, two_stream(model.config, canvas, rank, jnp.broadcast_to(jnp.arange(9), (2, 9)))
  ).logits[:, 9:]
  for row in range(2):
    # NaN as poison: entries that are not committed must not be read.
    cache = jax.tree.map(
      lambda x: jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x,
      model.allocate(1, 9),
    )
    order = np.argsort(np.asarray(rank[row]), kind="stable")
    num_context = int((~is_target[row]).sum())
    at = 0
    for count in (num_context, *[1] * (9 - num_context)):
      index = order[None, at : at + count]
      content = frontier_lib.content(
        jnp.asarray(token[row][index]),
        jnp.asarray(position[row][index]),
        jnp.zeros((1, count), int),
      )
      rest = order[None, at + count :][:, :1]
      where = jnp.asarray(position[row][rest])
      query = frontier_lib.query(jnp.full(rest.shape, 5), where, jnp.ones_like(where))
      joint = frontier_lib.concatenate(content, query)
      out = forward(params, joint, cache)
      path = jnp.arange(count)[None]
      cache = cache.commit(out.kv, joint.position, path, jnp.array([count]))
      at += count
      if rest.size:
        result = out.logits[0, count]
        np.testing.assert_allclose(result, dense[row, rest[0, 0]], atol=1e-5)


@pytest.mark.parametrize("method", [SelfDraft(3), Fused(2), DraftOnce(3)], ids=str)
def test_it_fills_like_any_other_model(tiny, method):
  model, params = tiny
  rng = np.random.default_rng(1)
  token, is_target = rng.integers(0, 5, (3, 12)), rng.random((3, 12)) < 0.6
  canvas = make_canvas(
    model.config, token, is_target, segment=np.arange(12) // 6 + np.zeros((3, 1))
  )
  filled = fill(model, params, canvas, method=method)
  expected = fill(model, params, canvas, method=Sequential())
  np.testing.assert_array_equal(filled.token, expected.token)
  nats = log_likelihood(model, params, canvas.replace(token=jnp.asarray(filled.token)))
  assert np.isfinite(np.asarray(nats)).all() and (np.asarray(nats)[is_target] < 0).all()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(attn_type="uni"), "attn_type 'uni' is not supported, only 'bi'"),
    (dict(clamp_len=400), "clamp_len 400 is not supported, only -1"),
    (dict(untie_r=False), "untie_r False is not supported"),
  ],
)
def test_settings_that_the_network_lacks_are_refused(fields, message):
  raw = dict(model_type="xlnet", d_model=8, n_head=2, n_layer=1, d_inner=8, vocab_size=8)
  assert families.read_config(raw)[1].depth == 1
  with pytest.raises(ValueError, match=message):
    families.read_config(raw | fields)


def test_its_first_layers_are_a_model(tiny):
  model, params = tiny
  first = model.prefix(1)
  assert first.config.depth == 1
  token = jnp.array([[1, 2, 3]], jnp.int32)
  frontier = frontier_lib.content(token, jnp.arange(3)[None], jnp.zeros((1, 3), int))
  cut, _ = model.segment(params, frontier, first=0, last=1)
  result = first.forward(prefix_params(params, 1), frontier)
  np.testing.assert_array_equal(result.logits, cut.logits)


def test_heads_that_the_format_cannot_express_are_refused(tiny):
  config = dataclasses.replace(tiny[0].config, head_dim=4)
  with pytest.raises(ValueError, match="closest, xlnet, cannot: head_dim is 4, there 8"):
    families.express(config)


@pytest.mark.parametrize(
  ("segment", "message"),
  [
    ([[0, 0]], "must have one shape"),
    ([[0, 0.5, 0]], "from 0 to 2047"),
    ([[0, -1, 0]], "from 0 to 2047"),
    ([[0, 2048, 0]], "from 0 to 2047"),
  ],
)
def test_wrong_segments_are_refused(tiny, segment, message):
  token, is_target = np.zeros((1, 3), int), np.array([[True, False, False]])
  with pytest.raises(ValueError, match=message):
    make_canvas(tiny[0].config, token, is_target, segment=np.array(segment))


def test_padding_has_no_segment(tiny):
  token, is_target = np.zeros((1, 3), int), np.array([[True, False, False]])
  valid, segment = np.array([[True, True, False]]), np.array([[0, 1, -1]], np.int8)
  canvas = make_canvas(tiny[0].config, token, is_target, valid, segment=segment)
  np.testing.assert_array_equal(canvas.position, [[0, position_of(1, 1), 2]])
