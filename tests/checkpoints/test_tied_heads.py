"""A head that config.json ties to the embedding: stored twice, with other numbers, or alone.

The oracle is transformers 5, which ties the two where one is missing or both are equal.
"""

import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from mtjax import checkpoints, frontier
from mtjax.evaluate import parity
from mtjax.models import Model, TransformerConfig, XLNetConfig, uniform_layers

needs_torch = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)

TIED = TransformerConfig(
  vocab_size=12,
  dim=8,
  heads=2,
  kv_heads=1,
  head_dim=4,
  mlp_dim=8,
  layers=uniform_layers(1),
)
# Cases of parity, and XLNet -> (name of the table, name of the head).
FAMILIES = {
  "llama 3": ("model.embed_tokens.weight", "lm_head.weight"),
  "gemma 2": ("model.embed_tokens.weight", "lm_head.weight"),
  "gpt 2": ("transformer.wte.weight", "lm_head.weight"),
  "xlnet": ("transformer.word_embedding.weight", "lm_loss.weight"),
}


def other(shape):
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


# The content of a file, from the one table of a tied model: (table or None, head).
STORED = {
  "a copy": lambda table: (table, table.copy()),
  "another head": lambda table: (table, other(table.shape)),
  "one number differs": lambda table: (table, table + other(table.shape) * (table == table.max())),
  "the head alone": lambda table: (None, table),
}


def check_same(actual, expected):
  # As float32, for which NumPy compares NaN with NaN as equal.
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(*(np.asarray(z, np.float32) for z in (x, y))),
    actual,
    expected,
  )


def store(folder, names, change):
  """Rewrites the two tensors of a tied model as `change` says."""
  file = folder / "model.safetensors"
  tensors = safetensors.load_file(file)
  made = change(tensors.pop(names[0]))
  tensors |= {name: value for name, value in zip(names, made, strict=True) if value is not None}
  safetensors.save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
  """Returns {name: function that saves that tied model of transformers in a folder}."""

  @functools.cache
  def get(name):
    if name != "xlnet":
      return parity.make_oracle(name).save_pretrained
    torch, transformers = parity._packages()
    torch.manual_seed(0)
    sizes = dict(vocab_size=parity.VOCAB, d_model=32, n_layer=2, n_head=4, d_inner=48, dropout=0.0)
    config = transformers.XLNetConfig(**sizes, initializer_range=0.3, mem_len=None, reuse_len=None)
    return transformers.XLNetLMHeadModel(config).eval().save_pretrained

  return get


@functools.partial(jax.jit, static_argnames="model")
def of_whole_texts(model, params, tokens):
  """Returns logits of tokens that all see each other, as XLNet computes them without a mask."""
  position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  content = frontier.content(tokens, position, jnp.zeros_like(tokens))
  with jax.default_matmul_precision("highest"):
    return model.forward(params, content).logits


def logits(name, model, params, rows):
  if name != "xlnet":
    return parity.logits(model, params, rows)
  return [np.asarray(of_whole_texts(model, params, jnp.asarray([row]))[0]) for row in rows]


@needs_torch
@pytest.mark.parametrize(
  ("name", "stored"),
  [
    (name, stored)
    for name in FAMILIES
    for stored in STORED
    if name == "llama 3" or stored != "one number differs"
  ],
)
def test_logits_are_those_of_transformers(tied, tmp_path, name, stored):
  import transformers

  tied(name)(tmp_path)
  store(tmp_path, FAMILIES[name], STORED[stored])
  assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"]
  rows = parity.prompts()[:1] if name == "xlnet" else parity.prompts()

  def difference(folder):
    oracle = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    model, params = checkpoints.load(folder)
    assert model.config.tied == (stored in ("a copy", "the head alone"))
    error = logits(name, model, params, rows)
    return model, params, parity.difference(parity.oracle_logits(oracle.eval(), rows), error)

  model, params, error = difference(tmp_path)
  assert error <= parity.TOLERANCE
  checkpoints.save(tmp_path / "again", model, params)
  again, same, error = difference(tmp_path / "again")
  assert again == model and error <= parity.TOLERANCE
  jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.fixture(params=["transformer", "xlnet"])
def saved(request, tmp_path):
  """Returns (folder, names, params) of a tiny tied model, whose embedding has a row of NaN."""
  if request.param == "xlnet":
    model = Model(XLNetConfig(vocab_size=12, dim=8, heads=2, head_dim=4, mlp_dim=8, depth=1))
    names = FAMILIES["xlnet"]
  else:
    model, names = Model(TIED), FAMILIES["llama 3"]
  params = model.init(jax.random.key(0))
  table = params["embedding"]["table"].at[0].set(jnp.nan).astype(jnp.bfloat16)
  params = {**params, "embedding": {"table": table}}
  checkpoints.save(tmp_path, model, params)
  return tmp_path, names, params


@pytest.mark.parametrize("stored", ["a copy", "the head alone"])
def test_one_tensor_is_both(saved, stored):
  folder, names, params = saved
  store(folder, names, STORED[stored])
  model, loaded = checkpoints.load(folder)
  assert model.config.tied
  check_same(loaded, params)


def test_the_head_alone_is_found_without_a_prefix(saved):
  folder, (table, head), params = saved
  store(folder, (table, head), STORED["the head alone"])
  file = folder / "model.safetensors"
  tensors = safetensors.load_file(file)
  prefix = table[: table.index(".") + 1]
  tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
  safetensors.save_file(tensors, file)
  check_same(checkpoints.load(folder)[1], params)


def test_the_same_numbers_in_another_dtype_are_a_copy(saved):
  folder, names, params = saved
  store(folder, names, lambda table: (table, table.astype(np.float32)))
  model, loaded = checkpoints.load(folder)
  assert model.config.tied
  check_same(loaded, params)


def test_another_head_has_a_dtype_of_its_own(saved):
  folder, names, params = saved
  store(folder, names, lambda table: (table, other(table.shape)))
  model, loaded = checkpoints.load(folder)
  assert not model.config.tied
  np.testing.assert_array_equal(loaded["head"]["kernel"], other((12, 8)).T)
  check_same(loaded["embedding"], params["embedding"])
  assert loaded["embedding"]["table"].dtype == jnp.bfloat16


def test_a_head_of_another_size_is_named(saved):
  folder, (table, head), _ = saved
  store(folder, (table, head), lambda table: (table, other((13, 8))))
  with pytest.raises(ValueError, match=rf"{head} is \[13, 8\] and must be \[12, 8\]"):
    checkpoints.load(folder)


def test_two_names_of_one_tensor_are_named(tmp_path):
  model = Model(TIED)
  checkpoints.save(tmp_path, model, model.init(jax.random.key(0)))
  file = tmp_path / "model.safetensors"
  tensors = safetensors.load_file(file)
  heads = dict.fromkeys(("lm_head.weight", "language_model.lm_head.weight"), other((12, 8)))
  safetensors.save_file({**tensors, **heads}, file)
  with pytest.raises(ValueError, match="two tensors in .*model.safetensors are lm_head.weight"):
    checkpoints.load(tmp_path)
