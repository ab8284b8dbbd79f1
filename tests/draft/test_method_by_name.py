"""mtjax.method: registered methods by name, made for the target that they are used with."""

import dataclasses
import gc
from unittest import mock

import pytest

import mtjax
from mtjax import pretrained
from mtjax.decode.adaptive import Adaptive
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import PromptLookup
from mtjax.registry.build import make_method
from mtjax.registry.configs import decode_config
from mtjax.registry.methods import DRAFTERS, METHODS, decoding, drafter_settings
from mtjax.text import TextModel
from tests.draft.drafters import (
  MASKED,
  MASKED_PARAMS,
  PARAMS,
  SMALL,
  SMALL_PARAMS,
  TARGET,
)
from tests.draft.letters import Letters

LETTERS = Letters("abcdefghijkl")
TEXT = TextModel(TARGET, PARAMS, LETTERS, "target")
DRAFT = TextModel(SMALL, SMALL_PARAMS, LETTERS, "small")
OTHER = dataclasses.replace(DRAFT, tokenizer=Letters("lkjihgfedcba"))
CANVAS = TextModel(MASKED, MASKED_PARAMS, LETTERS, "masked")
NEEDS_EXITS = {"sorted": dict(exits=(1,)), "self_sorted": dict(exits=(1,))}


@pytest.mark.parametrize("name", sorted(set(decoding()) - {"auto"}))
def test_every_method_is_that_of_its_config(name):
  model = {"cross_vocabulary": OTHER, "canvas": CANVAS}.get(name, DRAFT)
  draft = dict(draft_model=model) if "draft_model" in _fields(name) else {}
  own = NEEDS_EXITS.get(name, {})
  config = decode_config(name).to_dict() | draft
  config["drafter"] = config.get("drafter", {}) | own
  method, params = mtjax.method(name, **draft, **own).bind(TEXT)
  expected, expected_params = make_method(config, TEXT)
  assert method == expected or type(method) is type(expected)  # a store has an identity
  assert (params is None) == (expected_params is None)
  if name not in ("trie", "suffix", "cross_vocabulary"):
    assert method == expected


def _fields(name):
  return DRAFTERS[name].reads if name in DRAFTERS else ()


def test_keywords_reach_the_drafter_the_verifier_and_auto():
  method, params = mtjax.method("lookup", length=8, verifier="delta").bind(TEXT)
  assert method == Speculative(PromptLookup(length=8), "delta") and params is None
  method, params = mtjax.method("auto", of="recycling", tree=5, cost=1.5, patience=3).bind(TEXT)
  assert isinstance(method, Adaptive) and method.patience == 3
  assert params.costs.tolist() == [1.5] and params.drafter is None
  assert method.speculative.drafter.tree == 5
  assert mtjax.method("auto", cost=1.5).bind(TEXT)[0].speculative.drafter.length == 7


def test_no_setting_of_auto_hides_one_of_a_drafter():
  own = {"verifier", "draft_model", "weights", "of", *decode_config("auto").adaptive}
  assert not [name for name in DRAFTERS if own & set(drafter_settings(name))]


def test_a_draft_model_may_be_a_name_or_a_model():
  by_model, params = mtjax.method("draft", draft_model=DRAFT, length=2).bind(TEXT)
  with mock.patch.object(pretrained, "load_pretrained", return_value=DRAFT) as load:
    by_name, _ = mtjax.method("draft", draft_model="some/folder", length=2).bind(TEXT)
  load.assert_called_once_with("some/folder", mesh=None)
  assert by_model == by_name
  packed = dataclasses.replace(DRAFT, params=params)  # packing what is packed changes nothing
  assert mtjax.method("draft", draft_model=packed, length=2).bind(TEXT)[0] == by_model
  with pytest.raises(ValueError, match="draft model 'small' has another vocabulary"):
    mtjax.method("draft", draft_model=OTHER).bind(TEXT)


def test_a_canvas_has_the_conventions_of_its_model_and_needs_a_masked_one():
  method, _ = mtjax.method("canvas", draft_model=CANVAS, length=2).bind(TEXT)
  assert (method.drafter.mask_id, method.drafter.length) == (MASKED.config.vocab_size, 2)
  with pytest.raises(ValueError, match="needs a masked model"):
    mtjax.method("canvas", draft_model=DRAFT).bind(TEXT)
  other = dataclasses.replace(CANVAS, tokenizer=Letters("lkjihgfedcba"))
  with pytest.raises(ValueError, match="'masked' has another vocabulary"):
    mtjax.method("canvas", draft_model=other).bind(TEXT)


def test_a_method_is_made_once_per_target_and_does_not_keep_it():
  method = mtjax.method("trie")
  first = method.bind(TEXT)
  assert method.bind(TEXT) is first, "a trie would forget between calls"
  other = dataclasses.replace(TEXT)
  assert method.bind(other) is not first
  assert method._target() is other
  del other
  gc.collect()
  assert method._target() is None


def test_generate_takes_it_and_writes_the_text_of_plain_decoding():
  settings = dict(max_tokens=13, eos=())
  (plain,), _ = TEXT.generate("abcabc", **settings)
  (text,), run = TEXT.generate("abcabc", method=mtjax.method("lookup", length=3), **settings)
  assert text == plain and len(run.counters["accepted_at_depth"]) == 3
  pieces = TEXT.stream("abcabc", method=mtjax.method("ar"), **settings)
  assert "".join(piece for (piece,) in pieces) == plain.text


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("lokup",), "method 'lokup' is not one of: ar, auto, lookup, trie"),
    (("self",), "method 'self' fills blanks"),
    (("ar", dict(length=3)), "this method, ar, has no setting length; it has: none"),
    (
      ("lookup", dict(lenght=3, draft_model="draft")),
      "lookup, has no setting lenght and draft_model; it has: verifier, branches, length, ",
    ),
    (("draft", dict(topology=3)), "it has: verifier, draft_model, weights, confidence, length"),
    (("auto", dict(size=3)), "it has: verifier, of, cost, hope, memory, patience, branches"),
    (("auto", dict(of="lokup")), "drafter 'lokup' is not one of: lookup"),
    (("lookup", dict(verifier="blok")), "'blok'"),
  ],
)
def test_what_does_not_exist_is_refused_with_what_does(arguments, message):
  name, settings = (*arguments, {})[:2]
  with pytest.raises(ValueError, match=message):
    mtjax.method(name, **settings)


def test_misuse_is_refused_with_the_way_that_works():
  method = mtjax.method("lookup", length=3)
  assert repr(method) == "mtjax.method('lookup', length=3)" and method.name == "lookup"
  with pytest.raises(ValueError, match=r"method is the text 'lookup': give mtjax.method\('lookup'"):
    TEXT.generate("abc", method="lookup")
  with pytest.raises(ValueError, match="leave method_params out"):
    TEXT.generate("abc", method=method, method_params=PARAMS)
  with pytest.raises(ValueError, match=r"give it to TextModel.generate, or use both results of"):
    generate(TARGET, PARAMS, [[1]], method=method)
  assert "length" in METHODS["lookup"].drafter.settings
