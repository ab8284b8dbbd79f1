"""Speculative decoding in the loop: the same text as without drafts, or the same law."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtjax.decode import generate, stream
from mtjax.draft import ModelChain, PromptLookup
from mtjax.drafters import DRAFTERS
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling import Sampling
from mtjax.speculative import Speculative
from mtjax.stopping import StopStrings
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, ROWS, SMALL, TARGET

WARM = Sampling(
  temperature=(0.0, 1.0, 0.5), top_p=0.9, repetition_penalty=1.3, presence_penalty=0.2
)
SETTINGS = {
  "greedy": {},
  "sampled, penalties": dict(sampling=WARM, key=3),
  "ends": dict(
    sampling=WARM, key=4, eos=(5,), stop=StopStrings.compile(["ab"], [b"a", b"b", *[b"c"] * 10])
  ),
}


@pytest.fixture(scope="module")
def plain():
  return {
    name: generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, **settings)
    for name, settings in SETTINGS.items()
  }


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ROWS)
def test_text_is_that_of_decoding_without_drafts_token_by_token(plain, name, setting):
  row = ROWS[name]
  method = dict(method=Speculative(row.drafter), method_params=row.params)
  out = generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, **method, **SETTINGS[setting])
  assert out.tokens == plain[setting].tokens
  assert out.finish == plain[setting].finish
  if setting == "greedy" and row.useful:
    assert out.counters["tokens_per_forward"] > 1.3, "no draft was of use: this tests nothing"


def test_every_drafter_has_a_row():
  assert {row.name for row in ROWS.values()} == set(DRAFTERS), "add one to tests/draft/drafters.py"


def test_streamed_runs_make_up_the_text(plain):
  row = ROWS["the target itself"]
  method = dict(method=Speculative(row.drafter), method_params=row.params)
  pieces = list(stream(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, every=2, **method))
  rows = [[token for piece in pieces for token in piece[row]] for row in range(3)]
  assert rows == plain["greedy"].tokens
  assert max(len(row) for piece in pieces for row in piece) > 2


def test_a_target_that_drafts_for_itself_accepts_all():
  row = ROWS["the target itself"]
  method = dict(method=Speculative(row.drafter), method_params=row.params)
  # 1 from the prefill, then 4 a round.
  out = generate(TARGET, PARAMS, PROMPTS, max_tokens=25, **method)
  assert out.counters["target_forwards"] == 3 * (1 + 6)
  assert out.counters["drafted_at_depth"] == out.counters["accepted_at_depth"] == [18, 18, 18]


# One distribution over V**3 texts, by enumeration (see tests/core/test_law.py for the plain one).

LENGTH, SAMPLES, WARMTH = 3, 8192, 0.9


@pytest.fixture(scope="module")
def tiny_pair():
  def tiny(seed):
    config = TransformerConfig(
      vocab_size=5, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16, layers=uniform_layers(1)
    )
    params = Model(config).init(jax.random.key(seed))
    return Model(config), jax.tree.map(lambda x: x * 8 if x.ndim == 2 else x, params)

  return tiny(1), tiny(2)


@dataclasses.dataclass(frozen=True)
class Liar(ModelChain):
  """Says that its drafts were drawn from a flatter law than they were."""

  def propose(self, params, state, context):
    draft, state = super().propose(params, state, context)
    flat = jnp.sqrt(draft.q)
    return draft.replace(q=flat / jnp.maximum(flat.sum(-1, keepdims=True), 1e-9)), state


def sampled(pair, drafter, verifier, rows=SAMPLES):
  (target, params), (small, small_params) = pair
  method = dict(method=Speculative(drafter(small, 2), verifier), method_params=small_params)
  sampling = Sampling(temperature=WARMTH)
  out = generate(target, params, [[2, 0]] * rows, max_tokens=LENGTH, sampling=sampling, **method)
  return np.array(out.tokens) @ 5 ** np.arange(LENGTH)[::-1]


def p_value(pair, texts):
  from mtjax import frontier

  target, params = pair[0]
  every = np.stack(np.meshgrid(*[range(5)] * LENGTH, indexing="ij"), axis=-1).reshape(-1, LENGTH)
  rows = np.concatenate([np.tile([2, 0], (len(every), 1)), every], axis=1)
  logits = jax.jit(target.forward)(params, frontier.causal(jnp.asarray(rows))).logits
  law = np.asarray(jax.nn.softmax(logits[:, 1:-1] / WARMTH, axis=-1), np.float64)
  law = np.take_along_axis(law, every[..., None], axis=2)[..., 0].prod(axis=1)
  counts, expected = np.bincount(texts, minlength=len(law)), law / law.sum() * len(texts)
  rare = expected < 5
  counts = np.append(counts[~rare], counts[rare].sum())
  expected = np.append(expected[~rare], expected[rare].sum())
  return stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue


@pytest.mark.parametrize("verifier", ["chain", "block"])
def test_drafts_with_a_law_keep_the_targets_law_over_two_rounds(tiny_pair, verifier):
  assert p_value(tiny_pair, sampled(tiny_pair, ModelChain, verifier)) > 1e-3


def test_a_draft_law_that_is_not_the_one_drawn_from_is_seen(tiny_pair):
  assert p_value(tiny_pair, sampled(tiny_pair, Liar, "chain")) < 1e-6


def test_a_verifier_that_is_not_exact_for_the_drafts_is_refused():
  with pytest.raises(ValueError, match="rrs_with is exact for drafts drawn with-replacement"):
    Speculative(PromptLookup(branches=2), "rrs_with")


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: PromptLookup(length=0), "length must be at least 1"),
    (lambda: PromptLookup(most=1, least=2), "most .1. must be at least least .2."),
    (lambda: ModelChain(SMALL, 0), "length must be at least 1"),
    (lambda: ModelChain(SMALL, confidence=1.5), "confidence must be between 0 and 1, got 1.5"),
  ],
)
def test_settings_out_of_range(make, message):
  with pytest.raises(ValueError, match=message):
    make()
