"""Speculative decoding in the loop: the same text as without drafts, or the same distribution."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mtjax.decode import generation as decode
from mtjax.decode.generation import generate, stream
from mtjax.decode.speculative import Speculative
from mtjax.draft import ModelChain, PromptLookup
from mtjax.registry.methods import DRAFTERS
from mtjax.rounds import run
from mtjax.rounds.stop_strings import StopStrings
from mtjax.sampling.logits import Sampling
from tests.devices import on
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, ROWS, SMALL, TARGET
from tests.draft.two_rounds import p_value, texts

# The first three rows are greedy without penalties, as if no rule was set; the others have rules.
ROWS_OF_ALL, GREEDY, LIMITS_OF_ALL = PROMPTS * 2, slice(0, 3), LIMITS * 2
MIXED = Sampling(
  temperature=(0.0, 0.0, 0.0, 0.0, 1.0, 0.5),
  top_p=(1.0, 1.0, 1.0, 0.9, 0.9, 0.9),
  repetition_penalty=(1.0, 1.0, 1.0, 1.3, 1.3, 1.3),
  presence_penalty=(0.0, 0.0, 0.0, 0.2, 0.2, 0.2),
)
SPELLED = [b"a", b"b", *[b"c"] * 10]
# They share a program: where a text ends is data of it, and no text of the first one ends.
SETTINGS = {
  "no end": dict(sampling=MIXED, key=3, stop=StopStrings.compile(["xy"], SPELLED)),
  "ends": dict(sampling=MIXED, key=4, eos=(5,), stop=StopStrings.compile(["ab"], SPELLED)),
}


@pytest.fixture(scope="module")
def plain():
  return {
    name: generate(TARGET, PARAMS, ROWS_OF_ALL, max_tokens=LIMITS_OF_ALL, **settings)
    for name, settings in SETTINGS.items()
  }


@pytest.fixture(scope="module")
def greedy():
  return generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS)


def test_greedy_rows_beside_others_are_those_of_no_rules(plain, greedy):
  assert plain["no end"].tokens[GREEDY] == greedy.tokens


# Other tests run the drafters of these rows, or these rows, against plain decoding. The target
# itself is streamed below.
AGAIN = ("lookup", "the target itself", "trie, warmed")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=pytest.mark.slow) if name in AGAIN else name for name in ROWS]
)
def test_text_is_that_of_decoding_without_drafts_token_by_token(plain, name, setting):
  row = ROWS[name]
  method = dict(method=Speculative(row.drafter), method_params=row.params)
  out = generate(
    TARGET, PARAMS, ROWS_OF_ALL, max_tokens=LIMITS_OF_ALL, **method, **SETTINGS[setting]
  )
  assert out.tokens == plain[setting].tokens
  assert out.finish == plain[setting].finish
  if setting == "no end" and row.useful:
    drafted = [drafted for row in out.drafted[GREEDY] for drafted in row]
    # Every forward pass adds one token to the drafts that it accepts.
    assert len(drafted) > 1.3 * drafted.count(False), "no draft was of use: this tests nothing"


@pytest.mark.parametrize("name", ["a tree of the target", "likeliest paths of the target"])
def test_a_tpu_may_have_more_slots_than_requested(name):
  """For its kernel; no shape may depend on there being as many."""
  row, job = ROWS[name], decode.prepare(TARGET, PROMPTS, LIMITS, None, 0, (), None)
  decoding = decode.DecodeProgram(TARGET, Speculative(row.drafter), job.capacity, job.max_new)
  with on("TPU v5 lite"):
    program = run.whole.trace(decoding, (PARAMS, row.params, *job.arrays))
  assert "3,1,128,8]" in str(program.jaxpr), "the test no longer knows the cache's shape"


@pytest.mark.parametrize("name", ROWS)
def test_drafts_have_a_survival_where_the_drafter_says_so(name):
  row, job = ROWS[name], decode.prepare(TARGET, PROMPTS, LIMITS, None, 0, (), None)
  decoding = decode.DecodeProgram(TARGET, Speculative(row.drafter), job.capacity, job.max_new)

  def proposed(inputs):
    return decoding.stages(inputs)["propose"](decoding.begin(inputs), None)[0]

  draft = jax.eval_shape(proposed, (PARAMS, row.params, *job.arrays))
  shape = None if draft.survival is None else draft.survival.shape
  assert shape == (draft.tree.token.shape if row.drafter.estimates_survival else None)


def test_every_drafter_has_a_row():
  assert {row.name for row in ROWS.values()} == set(DRAFTERS), "add one to tests/draft/drafters.py"


def test_streamed_runs_make_up_the_text(greedy):
  row = ROWS["the target itself"]
  method = dict(method=Speculative(row.drafter), method_params=row.params)
  pieces = list(stream(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, every=2, **method))
  rows = [[token for piece in pieces for token in piece[row]] for row in range(3)]
  assert rows == greedy.tokens
  assert max(len(row) for piece in pieces for row in piece) > 2


def test_a_target_that_drafts_for_itself_accepts_all():
  row = ROWS["the target itself"]
  method = dict(method=Speculative(row.drafter), method_params=row.params)
  # 1 from the prefill, then 4 a round.
  out = generate(TARGET, PARAMS, PROMPTS, max_tokens=25, **method)
  assert out.counters["target_forwards"] == 3 * (1 + 6)
  assert out.counters["drafted_at_depth"] == out.counters["accepted_at_depth"] == [18, 18, 18]


@dataclasses.dataclass(frozen=True)
class Liar(ModelChain):
  """A drafter that reports a flatter q than the one its drafts were sampled from."""

  def propose(self, params, state, context):
    draft, state = super().propose(params, state, context)
    flat = jnp.sqrt(draft.q)
    return draft.replace(q=flat / jnp.maximum(flat.sum(-1, keepdims=True), 1e-9)), state


def chain(drafter):
  return lambda small: drafter(small, 2)


# Drafts that are judged as a block are counted in test_canvas.py.
@pytest.mark.parametrize("verifier", ["chain", pytest.param("block", marks=pytest.mark.slow)])
def test_sampled_drafts_keep_the_targets_distribution_over_two_rounds(verifier):
  assert p_value(texts(chain(ModelChain), verifier)) > 1e-3


def test_a_q_that_drafts_were_not_sampled_from_is_noticed():
  assert p_value(texts(chain(Liar), "chain")) < 1e-6


def test_a_verifier_that_is_not_exact_for_the_drafts_is_refused():
  with pytest.raises(ValueError, match="rrs_with is exact for draft scheme with-replacement"):
    Speculative(PromptLookup(branches=2), "rrs_with")


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: PromptLookup(length=0), "length must be at least 1"),
    (
      lambda: PromptLookup(max_ngram=1, min_ngram=2),
      "max_ngram .1. must be at least min_ngram .2.",
    ),
    (lambda: ModelChain(SMALL, 0), "length must be at least 1"),
    (lambda: ModelChain(SMALL, confidence=1.5), "confidence must be between 0 and 1, got 1.5"),
  ],
)
def test_settings_out_of_range(make, message):
  with pytest.raises(ValueError, match=message):
    make()
