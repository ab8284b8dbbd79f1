"""Every family compared with transformers: logits, cache, greedy tokens, and exports."""

import dataclasses
import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.evaluate import parity
from mtjax.models import Model, Rope

ROOT = Path(__file__).resolve().parents[2]

needs_torch = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
  """Returns a function: name -> (the oracle, its folder, its logits for the prompts)."""

  @functools.cache
  def get(name):
    oracle = parity.make_oracle(name)
    folder = tmp_path_factory.mktemp("oracle") / "model"
    oracle.save_pretrained(folder)
    return oracle, folder, parity.oracle_logits(oracle, parity.prompts())

  return get


@needs_torch
@pytest.mark.parametrize("name", parity.CASES)
def test_logits_and_greedy_tokens_are_those_of_transformers(imported, name):
  oracle, folder, _ = imported(name)
  result = parity.compare(oracle, folder)
  assert result.uncached <= parity.TOLERANCE and result.cached <= parity.TOLERANCE, result
  assert result.same_tokens, result


@needs_torch
@pytest.mark.parametrize("name", parity.CASES)
def test_transformers_loads_what_we_save(imported, name, tmp_path):
  import transformers

  _, folder, expected = imported(name)
  model, params = checkpoints.load(folder)
  checkpoints.save(tmp_path, model, params)
  again, same = checkpoints.load(tmp_path)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, same, params)
  back = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path, attn_implementation="eager"
  ).eval()
  logits = parity.oracle_logits(back, parity.prompts())
  assert parity.difference(expected, logits) == 0, "transformers computes another model"


def every_layer(**fields):
  def change(config):
    layers = tuple(dataclasses.replace(layer, **fields) for layer in config.layers)
    return dataclasses.replace(config, layers=layers)

  return change


def field(**fields):
  return lambda config: dataclasses.replace(config, **fields)


def only_local_rope(config):
  return every_layer(rope=config.layers[0].rope)(config)


# Each family without one of its features.
MUTATIONS = {
  "llama 2, eps": ("llama 2", field(norm_eps=1e-2)),
  "llama 3, plain rope": ("llama 3", every_layer(rope=Rope(theta=500_000.0))),
  "linear, plain rope": ("llama linear", every_layer(rope=Rope())),
  "yarn, plain rope": ("llama yarn", every_layer(rope=Rope())),
  "yarn, no attention factor": (
    "llama yarn",
    lambda config: every_layer(
      rope=dataclasses.replace(config.layers[0].rope, attention_factor=1.0)
    )(config),
  ),
  "yarn, no bias": ("llama yarn", field(out_bias=False)),
  "mistral, no window": ("mistral", every_layer(window=None)),
  "mistral, window off by one": ("mistral", every_layer(window=8)),
  "qwen 2, no window": ("qwen 2", every_layer(window=None)),
  "qwen 2, no bias": ("qwen 2", field(qkv_bias=False)),
  "qwen 3, no norm of heads": ("qwen 3", field(qk_norm="none")),
  "smollm 3, all rotary": ("smollm 3", every_layer(rope=Rope())),
  "olmo 2, no norm of projections": ("olmo 2", field(qk_norm="none")),
  "gemma 2, no cap of scores": ("gemma 2", field(attention_soft_cap=None)),
  "gemma 2, no cap of logits": ("gemma 2", field(logit_soft_cap=None)),
  "gemma 2, usual scale": ("gemma 2", field(attention_scale=None)),
  "gemma 2, plain norms": ("gemma 2", field(norm="rms")),
  "gemma 3, embeddings not scaled": ("gemma 3", field(embedding_scale=None)),
  "gemma 3, one rope": ("gemma 3", only_local_rope),
  "gpt 2, exact gelu": ("gpt 2", field(activation="gelu")),
  "gpt 2, rms norms": ("gpt 2", field(norm="rms")),
}


@needs_torch
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_lost_feature_is_noticed(imported, mutation):
  name, change = MUTATIONS[mutation]
  _, folder, expected = imported(name)
  model, params = checkpoints.load(folder)
  other = Model(change(model.config))
  assert other != model
  error = parity.difference(expected, parity.logits(other, params, parity.prompts()))
  assert not error <= 10 * parity.TOLERANCE, f"only {error}"


def test_without_torch_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(ImportError, match=r"torch is not installed: `pip install mtjax\[parity\]`"):
    parity.make_oracle("llama 2")


@needs_torch
def test_the_launcher_fails_when_a_family_differs():
  code = (
    "from experiments import parity as launcher; from mtjax.cli import flags as launch; "
    "from mtjax.evaluate import parity; "
    "parity.compare = lambda *_: parity.Parity(1e-6, float('nan'), True); "
    "launch.main(launcher.run)"
  )
  command = [sys.executable, "-c", code, "--families=gpt 2"]
  run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
  assert run.returncode == 1 and "differs: gpt 2" in run.stdout, run.stdout + run.stderr
