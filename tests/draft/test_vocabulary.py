"""Drafts of a model with other rows than the target: padded or cut, never past the tokens.

Qwen2.5's 0.5B has 151,936 rows and its 7B 152,064, with one tokenizer of 151,665 tokens.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import (
  S2D,
  BestFirst,
  CrossVocabulary,
  GrownTree,
  InVocabulary,
  ModelChain,
  ModelTree,
  in_vocabulary,
)
from mtjax.evaluate.exactness import emitted, target_probs, total_variation
from mtjax.models import Model
from mtjax.registry.methods import DRAFTERS
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.trees import chain, k_ary
from mtjax.types import DraftScheme
from mtjax.verify import VERIFIERS
from tests.compiled import forward
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, TARGET, VOCAB
from tests.draft.letters import Letters

FEW, MANY = 11, 15
ROWS = {"padded": FEW, "cut": MANY}


def with_rows(rows):
  """The target with so many rows: without its last ones, or with more that attract every token."""
  table = PARAMS["embedding"]["table"]
  more = 9 * jnp.ones((max(rows - VOCAB, 0), table.shape[1]))
  more *= (-1.0) ** jnp.arange(more.shape[0])[:, None]
  model = Model(dataclasses.replace(TARGET.config, vocab_size=rows))
  return model, PARAMS | {"embedding": {"table": jnp.concatenate([table[:rows], more])}}


@pytest.fixture(scope="module")
def plain():
  sampling = Sampling(temperature=(0.0, 1.0, 0.7))
  settings = dict(max_tokens=LIMITS, sampling=sampling, key=2)
  return settings, generate(TARGET, PARAMS, PROMPTS, **settings).tokens


@pytest.mark.parametrize(
  ("kind", "make"),
  [
    ("padded", lambda model: ModelChain(model, 3)),
    pytest.param(
      "cut", lambda model: ModelChain(model, 3, confidence=0.05), marks=pytest.mark.slow
    ),
    pytest.param("padded", lambda model: BestFirst(model, 2, 3, 6), marks=pytest.mark.slow),
    ("cut", lambda model: ModelTree(model, k_ary((3, 2)))),
    ("padded", lambda model: GrownTree(model, 6, 3, 2, 2)),
    ("cut", lambda model: S2D(model, (1,), (0.05,), 3)),
  ],
)
def test_text_is_that_of_plain_decoding_and_drafts_are_of_use(plain, kind, make):
  settings, expected = plain
  model, params = with_rows(ROWS[kind])
  drafter = make(in_vocabulary(model, rows=VOCAB, tokens=VOCAB))
  out = generate(
    TARGET, PARAMS, PROMPTS, method=Speculative(drafter), method_params=params, **settings
  )
  assert out.tokens == expected
  assert sum(out.counters["accepted_at_depth"]) > 0


def test_a_draft_of_all_the_targets_tokens_is_accepted_whole():
  """Its own further rows, which would be the best of every text, change nothing."""
  model, params = with_rows(MANY)
  method = Speculative(ModelChain(in_vocabulary(model, rows=VOCAB, tokens=VOCAB), 3))
  out = generate(TARGET, PARAMS, PROMPTS, max_tokens=25, method=method, method_params=params)
  assert out.counters["drafted_at_depth"] == out.counters["accepted_at_depth"]


@pytest.mark.parametrize("own", [FEW, VOCAB, MANY])
@pytest.mark.parametrize("tokens", [7, VOCAB])
def test_logits_are_the_models_and_nothing_past_the_tokens(own, tokens):
  model, params = with_rows(own)
  fitted = in_vocabulary(model, rows=VOCAB, tokens=tokens)
  text = jnp.array([[0, 3, min(own, VOCAB) - 1, 1]])
  inner = forward(model, params, frontier.causal(text)).logits
  outer = forward(fitted, params, frontier.causal(text)).logits
  shared = min(own, tokens, VOCAB)
  assert outer.shape[-1] == fitted.config.vocab_size == VOCAB
  assert (outer[..., :shared] == inner[..., :shared]).all()
  assert (outer[..., shared:] == -jnp.inf).all()


def test_a_token_that_the_draft_model_has_no_row_for_is_read_as_its_last():
  model, params = with_rows(FEW)
  fitted = in_vocabulary(model, rows=VOCAB, tokens=VOCAB)
  one, other = (
    forward(fitted, params, frontier.causal(jnp.array([[0, token, 1]]))).logits
    for token in (VOCAB - 1, FEW - 1)
  )
  assert (one == other).all() and jnp.isfinite(one[..., :FEW]).all()


@pytest.mark.parametrize("own", ROWS.values())
def test_extra_embeddings_keep_their_names_and_follow_the_targets_rows(own):
  model, params = with_rows(own)
  config = dataclasses.replace(model.config, extra_embeddings=2, extra_names=("mask", "prompt"))
  model = Model(config)
  params = params | {"extra": {"table": params["embedding"]["table"][:2] * -3}}
  fitted = in_vocabulary(model, rows=VOCAB, tokens=VOCAB)
  ids = [fitted.config.special_id(name) for name in ("mask", "prompt")]
  assert ids == [VOCAB, VOCAB + 1]
  theirs, ours = (frontier.causal(jnp.array([[1, *x]])) for x in ([own, own + 1], ids))
  wanted = forward(model, params, theirs).logits[..., : min(own, VOCAB)]
  found = forward(fitted, params, ours).logits[..., : min(own, VOCAB)]
  np.testing.assert_array_equal(found, wanted)


def test_models_whose_rows_are_all_tokens_of_the_target_stay_as_they_are():
  assert in_vocabulary(TARGET, rows=VOCAB, tokens=VOCAB) is TARGET
  assert in_vocabulary(TARGET, rows=VOCAB, tokens=VOCAB + 5) is TARGET
  assert in_vocabulary(TARGET, rows=VOCAB, tokens=VOCAB - 1) == InVocabulary(TARGET, 12, 11)
  with pytest.raises(ValueError, match="a tokenizer must have at least 1 token, got 0"):
    in_vocabulary(TARGET, rows=VOCAB, tokens=0)


@pytest.mark.parametrize("own", [2, 5], ids=["padded", "cut"])
@pytest.mark.parametrize(
  ("verifier", "shape", "scheme"),
  [
    ("chain", chain(3), DraftScheme.WITHOUT_REPLACEMENT),
    ("block", chain(3), DraftScheme.WITHOUT_REPLACEMENT),
    ("traversal", k_ary((2, 2)), DraftScheme.WITHOUT_REPLACEMENT),
    ("rrs_with", k_ary((2, 2)), DraftScheme.WITH_REPLACEMENT),
    ("sample_match", k_ary((2, 2)), DraftScheme.DELTA),
  ],
)
def test_what_is_emitted_is_the_targets_distribution_over_all_its_ids(own, verifier, shape, scheme):
  """All drafts and coins, in float64, for twenty pairs: the target has 3 ids, 2 of them tokens."""
  pairs, contexts, vocab, tokens = 20, 1 + 3 + 9 + 27 + 81, 3, 2
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.full(vocab, 0.7), (pairs, contexts))
  model = Model(dataclasses.replace(TARGET.config, vocab_size=own))
  fitted = in_vocabulary(model, rows=vocab, tokens=tokens)
  logits = jnp.asarray(rng.normal(size=(pairs, contexts, own)) * 2)
  q = np.asarray(jax.nn.softmax(fitted._fitted(logits), axis=-1), np.float64)
  assert (q[..., :tokens] > 0).all() and (q[..., tokens:] == 0).all()
  q /= q.sum(axis=-1, keepdims=True)
  found = emitted(VERIFIERS[verifier], shape, scheme, p, q)
  assert total_variation(found.probs, target_probs(p, shape.height + 1)).max() <= 1e-12
  assert found.tokens.min() > 1


def test_the_sizes_alone_are_refused_with_what_would_be_right():
  method = Speculative(ModelChain(with_rows(MANY)[0], 3))
  with pytest.raises(ValueError, match="vocab_size 15, the target 12: .*in_vocabulary"):
    generate(TARGET, PARAMS, PROMPTS, method=method)


@pytest.mark.parametrize("name", ["draft", "draft_tree", "best_first", "grown_tree", "sorted"])
@pytest.mark.parametrize("kind", ROWS)
def test_a_config_puts_the_draft_model_in_the_targets_vocabulary(monkeypatch, name, kind):
  letters = Letters("abcdefgh")
  model, params = with_rows(ROWS[kind])
  draft = TextModel(model, params, letters)
  monkeypatch.setattr("mtjax.pretrained.load_pretrained", lambda name, **_: draft)
  fields = dict(exits=(1,)) if name == "sorted" else {}
  config = dict(draft_model="other", weights="stored", drafter=fields)
  drafter, _ = DRAFTERS[name](config, TextModel(TARGET, PARAMS, letters))
  assert drafter.model == InVocabulary(model, VOCAB, letters.vocab_size)
  Speculative(drafter).check(TARGET)


def test_a_draft_model_of_other_tokens_keeps_to_those_it_has(monkeypatch):
  letters = Letters("hgfedcba")
  model, params = with_rows(MANY)
  draft = TextModel(model, params, letters)
  monkeypatch.setattr("mtjax.pretrained.load_pretrained", lambda name, **_: draft)
  target = TextModel(TARGET, PARAMS, Letters("abcdefghijkl"))
  drafter, _ = DRAFTERS["cross_vocabulary"](dict(draft_model="other", weights="stored"), target)
  assert drafter == CrossVocabulary(InVocabulary(model, MANY, 8))
