"""The bundled models: small, one vocabulary, and they have learned to read (docs/benchmarks.md)."""

import gzip
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from mtjax.anysubset import log_likelihood, make_canvas
from mtjax.data.tokenizers import BpeTokenizer
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
  own = BpeTokenizer.bundled().fingerprint()
  assert {text.tokenizer.fingerprint() for text in models.values()} == {own}
  stored = sum(file.stat().st_size for file in (ASSETS / "models").rglob("*") if file.is_file())
  assert stored < 36e6
  of_any_subset = (ASSETS / "models" / "anysubset").iterdir()
  assert sum(file.stat().st_size for file in of_any_subset) < 12e6
  notice = (ASSETS / "NOTICE").read_text(encoding="utf-8")
  assert all(word in notice for word in ("Python Software Foundation", "GSM8K", "Heidi"))


def bits_per_byte(text, model):
  documents = named_documents(
    ["valid=builtin:tinyshakespeare#split=valid"], text.tokenizer, limit=4000
  )["valid"]
  found = score(model, text.params, documents, start=text.tokenizer.bos_id, length=128, context=64)
  return found.bits_per_byte


def test_they_predict_text_that_they_have_not_seen(models):
  """Shakespeare is far from what they were trained on; without training it is about 4.7 bits."""
  causal = {name: text for name, text in models.items() if name != "anysubset"}
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
  found = sum(word in known for word in words)
  assert len(words) >= 10 and found >= 0.8 * len(words), completions[0].text


def test_the_any_subset_model_reads_both_sides_of_a_blank(models):
  """The missing part of a text is more probable with the text after it than without."""
  text = models["anysubset"]
  (documents,) = named_documents(
    ["valid=builtin:tinyshakespeare#split=valid"], text.tokenizer, limit=4000
  ).values()
  rows = np.concatenate([tokens for tokens, _ in documents])[: 8 * 64].reshape(8, 64)
  is_target, valid = np.zeros(rows.shape, bool), np.ones(rows.shape, bool)
  is_target[:, 28:36] = True
  nats = {}
  for name, behind in (("both", True), ("before", False)):
    valid[:, 36:] = behind
    canvas = make_canvas(text.model.config, rows, is_target, valid)
    nats[name] = -log_likelihood(text.model, text.params, canvas).sum() / is_target.sum()
  assert nats["both"] < nats["before"] - 0.05 and nats["both"] < np.log(4096) - 2, nats
