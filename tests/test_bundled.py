"""The bundled models: small, one vocabulary, and they have learned to read (docs/benchmarks.md)."""

import gzip
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from mtjax.anysubset import log_likelihood, make_canvas
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.diffusion import BlockPlan
from mtjax.diffusion.denoising import MaskedNetwork, denoise
from mtjax.diffusion.denoising.caches import ExactBlocks, Uncached
from mtjax.diffusion.likelihood.estimators import by_name
from mtjax.diffusion.likelihood.network import network_conditionals
from mtjax.evaluate.diffusion_likelihood import diffusion_likelihood
from mtjax.evaluate.perplexity import score
from mtjax.evaluate.texts import named_documents
from mtjax.models import count_parameters
from mtjax.pretrained import BUNDLED, DEMO_PROMPTS, load_pretrained

ASSETS = Path(str(resources.files("mtjax"))) / "assets"


@pytest.fixture(scope="module")
def models():
  return {name: load_pretrained(name) for name in BUNDLED}


def test_sizes_and_vocabulary(models):
  assert count_parameters(models["target"].params) == 8_319_040
  assert count_parameters(models["draft"].params) == 918_144
  assert count_parameters(models["sorted"].params) == 918_144
  assert count_parameters(models["anysubset"].params) == 5_983_680
  assert count_parameters(models["masked"].params) == 5_983_360
  assert count_parameters(models["block"].params) == 5_983_360
  bundled = BpeTokenizer.bundled().fingerprint()
  assert {text.tokenizer.fingerprint() for text in models.values()} == {bundled}
  stored = sum(file.stat().st_size for file in (ASSETS / "models").rglob("*") if file.is_file())
  assert stored < 60e6
  for name in ("anysubset", "masked", "block"):
    files = (ASSETS / "models" / name).iterdir()
    assert sum(file.stat().st_size for file in files) < 12e6, name
  notice = (ASSETS / "NOTICE").read_text(encoding="utf-8")
  assert all(word in notice for word in ("Python Software Foundation", "GSM8K", "Heidi"))


def bits_per_byte(text, model):
  documents = named_documents(
    ["valid=builtin:tinyshakespeare#split=valid"], text.tokenizer, limit=4000
  )["valid"]
  start = text.tokenizer.bos_id
  return score(model, text.params, documents, start=start, length=128, context=64).bits_per_byte


def test_they_predict_text_that_they_have_not_seen(models):
  """Shakespeare is unlike the training text; an untrained model needs about 4.7 bits per byte."""
  causal = {name: models[name] for name in ("target", "draft", "sorted")}
  bits = {name: bits_per_byte(text, text.model) for name, text in causal.items()}
  assert bits["target"] < bits["draft"] - 0.1 and bits["draft"] < 3.2, bits
  assert abs(bits["sorted"] - bits["draft"]) < 0.1, bits


def test_the_sorted_draft_may_be_left_after_a_layer_and_the_other_may_not(models):
  assert models["sorted"].model.config.exits == (1, 2)
  early = {name: bits_per_byte(models[name], models[name].model.prefix(1))
           for name in ("draft", "sorted")}  # fmt: skip
  assert early["sorted"] < early["draft"] - 0.1, early


def test_they_write_words(models):
  completions, _ = models["target"].generate(DEMO_PROMPTS[:1], max_tokens=32)
  known = set()
  for part in (ASSETS / "tinyshakespeare").glob("*.gz"):
    known |= set(gzip.decompress(part.read_bytes()).decode().lower().split())
  words = [word.strip(".,;:\"'!?").lower() for word in completions[0].text.split()]
  count = sum(word in known for word in words)
  assert len(words) >= 10 and count >= 0.8 * len(words), completions[0].text


def test_the_any_subset_model_reads_both_sides_of_a_blank(models):
  """The targets are more likely with the text after them than without it."""
  text = models["anysubset"]
  (documents,) = named_documents(
    ["valid=builtin:tinyshakespeare#split=valid"], text.tokenizer, limit=4000
  ).values()
  rows = np.concatenate([tokens for tokens, _ in documents])[: 8 * 64].reshape(8, 64)
  is_target, valid = np.zeros(rows.shape, bool), np.ones(rows.shape, bool)
  is_target[:, 28:36] = True
  nats = {}
  for name, after in (("both", True), ("before", False)):
    valid[:, 36:] = after
    canvas = make_canvas(text.model.config, rows, is_target, valid)
    nats[name] = -log_likelihood(text.model, text.params, canvas).sum() / is_target.sum()
  assert nats["both"] < nats["before"] - 0.05 and nats["both"] < np.log(4096) - 2, nats


@pytest.mark.parametrize(("name", "block_length"), [("masked", 0), ("block", 8)])
def test_the_diffusion_models_bound_text_that_they_have_not_seen(models, name, block_length):
  """Shakespeare again: an untrained model's bound is about 4.7 bits per byte."""
  text = models[name]
  network = MaskedNetwork.of(text.model)
  assert network.block_length == block_length and not network.shifted
  documents = named_documents(
    ["valid=builtin:tinyshakespeare#split=valid"], text.tokenizer, limit=1000
  )["valid"]
  (bound,) = diffusion_likelihood(
    network, text.params, documents, by_name(["monte_carlo"], samples=16),
    start=text.tokenizer.bos_id, length=128, context=32,
  )  # fmt: skip
  assert bound.error / bound.nats < 0.05 and bound.bits_per_byte < 3.8, bound


def test_the_masked_model_reads_both_sides_of_a_blank(models):
  text = models["masked"]
  network = MaskedNetwork.of(text.model)
  (documents,) = named_documents(
    ["valid=builtin:tinyshakespeare#split=valid"], text.tokenizer, limit=4000
  ).values()
  rows = np.concatenate([tokens for tokens, _ in documents])[: 8 * 64].reshape(8, 64)
  blank = np.zeros((1, 64), bool)
  blank[:, 28:32] = True
  nats = {}
  for name, end in (("both", 64), ("before", 32)):
    each = [
      network_conditionals(network, text.params, row[:end], batch=1)(blank[:, :end]) for row in rows
    ]
    nats[name] = -np.sum(each) / (4 * len(rows))
  assert nats["both"] < nats["before"] - 0.05 and nats["both"] < np.log(4096) - 2, nats


def test_the_block_model_writes_the_same_text_with_its_exact_cache(models):
  text = models["block"]
  network = MaskedNetwork.of(text.model)
  prompts = [text.tokenizer.encode(prompt) for prompt in DEMO_PROMPTS[:2]]
  plan, found = BlockPlan(16, network.block_length, 4), []
  for cache in (Uncached(), ExactBlocks()):
    found.append(denoise(network, text.params, prompts, plan=plan, cache=cache))
  assert found[0].tokens == found[1].tokens and len(found[0].tokens[0]) == 16
