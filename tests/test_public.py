"""The public names: their list, their documentation, scoring, and the first example."""

import inspect
import subprocess
import sys

import jax
import numpy as np
import pytest

import mtjax
from mtjax.anysubset import log_likelihood, make_canvas
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate.perplexity import score as score_documents
from mtjax.models import uniform_layers
from tests.source import ROOT

NAMES = {
  "VERIFIERS", "Adaptive", "Autoregressive", "BestFirst", "Completion", "Exactness", "Frontier",
  "Generation", "Infilling", "KVCache", "Model", "ModelChain", "ModelTree", "PromptLookup",
  "Sampling", "Score", "Speculative", "TextModel", "TransformerConfig", "Trie", "denoiser",
  "infill", "load", "method", "score",
}  # fmt: skip


def test_the_public_names_are_these():
  assert set(mtjax.__all__) == set(mtjax._HOME) == NAMES
  assert NAMES <= set(dir(mtjax))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_public_name_is_what_it_says_and_documented(name):
  value = getattr(mtjax, name)
  assert getattr(mtjax, name) is value
  if inspect.isclass(value):
    assert value.__name__ == name and value.__module__.startswith("mtjax.")
  if callable(value):
    assert inspect.getdoc(value) and not value.__doc__.startswith(f"{name}("), "no docstring"


def test_editors_and_type_checkers_see_the_same_names():
  """The imports for type checkers, which never run, import each name from the right module."""
  source = (ROOT / "mtjax" / "__init__.py").read_text(encoding="utf-8")
  block = source.split("if TYPE_CHECKING:\n")[1].split("\n\n")[0]
  scope = {}
  exec("\n".join(line.strip() for line in block.splitlines()), scope)
  assert {name: scope[name] for name in NAMES} == {name: getattr(mtjax, name) for name in NAMES}


def test_an_unknown_name_is_an_attribute_error_and_a_module_still_a_module():
  with pytest.raises(AttributeError, match="module 'mtjax' has no attribute 'generte'"):
    _ = mtjax.generte
  from mtjax import frontier

  assert frontier.__name__ == "mtjax.frontier"


def test_importing_the_package_imports_nothing_slow():
  code = "import mtjax, sys; print({'jax', 'flax', 'numpy', 'absl'} & set(sys.modules), dir(mtjax))"
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert run.stdout.startswith("set() "), run.stdout + run.stderr


def test_the_first_example_runs():
  model = mtjax.load("target")
  completions, run = model.generate(
    ["def add(a, b):"],
    method=mtjax.Speculative(mtjax.PromptLookup(length=8)),
    sampling=mtjax.Sampling(temperature=0.8),
    max_tokens=64,
  )
  assert completions[0].text and len(completions[0].tokens) <= 64
  assert run.counters["tokens_per_forward"] >= 1


ANY_SUBSET = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))


def tiny(**settings):
  config = mtjax.TransformerConfig(
    vocab_size=258, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16, layers=uniform_layers(1),
    max_position=64, **settings,
  )  # fmt: skip
  model = mtjax.Model(config)
  return mtjax.TextModel(model, model.init(jax.random.key(0)), ByteTokenizer())


def test_texts_are_scored_one_by_one():
  model, texts = tiny(), ["a cat", "zwölf " * 20, "b"]
  scores = mtjax.score(model, texts)
  assert [s.bytes for s in scores] == [s.tokens for s in scores] == [5, 140, 1]
  for text, score in zip(texts, scores, strict=True):
    documents = [(list(text.encode()), len(text.encode()))]
    alone = score_documents(model.model, model.params, documents, start=256, length=64, context=32)
    assert score.nats == pytest.approx(alone.nats, rel=1e-5)
    assert score.log_likelihood == -score.nats
  (alone,) = mtjax.score(model, "a cat")
  assert alone.nats == pytest.approx(scores[0].nats, rel=1e-5)


def test_an_any_subset_model_scores_all_tokens_of_a_text_jointly():
  model, texts = tiny(**ANY_SUBSET), ["a cat", "on the mat"]
  scores = mtjax.score(model, texts)
  for text, score in zip(texts, scores, strict=True):
    token = np.asarray([list(text.encode())])
    canvas = make_canvas(model.model.config, token, np.ones_like(token, bool))
    alone = log_likelihood(model.model, model.params, canvas).sum()
    assert score.log_likelihood == pytest.approx(float(alone), rel=1e-5)
    assert score.bits_per_byte == pytest.approx(-float(alone) / np.log(2) / len(text), rel=1e-5)


@pytest.mark.parametrize("kind", [{}, ANY_SUBSET])
def test_what_cannot_be_scored_is_refused(kind):
  model = tiny(**kind)
  with pytest.raises(ValueError, match="there is no text to score"):
    mtjax.score(model, [])
  with pytest.raises(ValueError, match="text 1 is empty"):
    mtjax.score(model, ["a", ""])
  with pytest.raises(ValueError, match="text 0 must be a str, got 3"):
    mtjax.score(model, [3])


def test_a_text_beyond_an_any_subset_models_positions_is_refused():
  with pytest.raises(ValueError, match="65 entries, but the model has 64 positions"):
    mtjax.score(tiny(**ANY_SUBSET), "a" * 64)
