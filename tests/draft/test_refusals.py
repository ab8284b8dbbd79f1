"""Drafters, verifiers, targets that do not go together: refused before anything is compiled."""

import dataclasses

import jax
import pytest

from mtjax.checkpoints import load, save
from mtjax.data import bpe
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.decode.adaptive import Adaptive
from mtjax.decode.generation import generate, stream
from mtjax.decode.speculative import Speculative
from mtjax.draft import CrossVocabulary, ModelChain, PromptLookup
from mtjax.models import Model
from mtjax.registry.methods import DRAFTERS
from mtjax.text import TextModel
from mtjax.trees import encodings
from mtjax.types import DraftScheme
from tests.draft.drafters import PARAMS, SMALL, TARGET


def other(**changes):
  return Model(dataclasses.replace(SMALL.config, **changes))


WRONG = {
  "vocabulary": (ModelChain(other(vocab_size=13), 3), "model has vocab_size 13, the target 12"),
  "positions": (ModelChain(other(max_position=64), 3), "has max_position 64, the target 128"),
  "any order": (
    ModelChain(other(predicts="any_subset"), 3),
    "the draft model is an any-subset model",
  ),
  "any order, any vocabulary": (
    CrossVocabulary(other(predicts="any_subset", vocab_size=13)),
    "draft model is an any-subset model",
  ),
  "long draft": (PromptLookup(length=200), "drafts of 200 tokens do not fit the target's 128"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("run", [generate, stream])
def test_drafter_and_target(name, run, monkeypatch):
  drafter, message = WRONG[name]
  # Nothing may be compiled, or even traced, before the refusal.
  monkeypatch.setattr(Model, "forward", None)
  for method in (Speculative(drafter), Adaptive(Speculative(drafter))):
    with pytest.raises(ValueError, match=message):
      run(TARGET, PARAMS, [[1, 2]], max_tokens=4, method=method)


@pytest.mark.parametrize(
  ("verifier", "drafter", "message"),
  [
    ("rrs_with", PromptLookup(branches=2), "exact for draft scheme with-replacement"),
    ("block", PromptLookup(branches=2), "block takes chains, but this tree has up to 2 children"),
    ("chain", PromptLookup(), "this draft has delta; use sample_match or delta"),
    ("spechub", ModelChain(SMALL), "exact for draft scheme pair"),
    ("best", ModelChain(SMALL), "no verifier 'best'; there are block, chain,"),
  ],
)
def test_verifier_and_drafter(verifier, drafter, message):
  with pytest.raises(ValueError, match=message):
    Speculative(drafter, verifier)


def test_a_verifier_for_a_tree_of_one_child_a_node():
  assert ModelChain(SMALL).scheme is DraftScheme.WITHOUT_REPLACEMENT
  Speculative(ModelChain(SMALL), "rrs_with")


def test_parents_that_run_in_a_circle():
  with pytest.raises(ValueError, match="node 1 has parent 2: a parent must stand before its child"):
    encodings.from_parents([-1, 2, 1])


def test_a_draft_model_of_another_tokenizer(tmp_path):
  words = BpeTokenizer.bundled()
  target = TextModel(TARGET, PARAMS, words)
  bpe.train(["one two three one two three"] * 8, vocab_size=265).save(str(tmp_path / "few.json"))
  few = BpeTokenizer(tmp_path / "few.json")
  model = other(vocab_size=few.vocab_size)
  save(tmp_path / "draft", model, model.init(jax.random.key(0)), tokenizer=few)
  assert load(tmp_path / "draft")[0].config.vocab_size == few.vocab_size
  config = dict(draft_model=str(tmp_path / "draft"), weights="stored")
  with pytest.raises(ValueError, match="another vocabulary than the target"):
    DRAFTERS["draft"](config, target)
