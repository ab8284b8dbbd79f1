"""Trees of a draft model in the loop: what a perfect draft reaches, and when drafting stops."""

import pytest

from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import BestFirst, ModelTree
from mtjax.sampling.logits import Sampling
from mtjax.trees import k_ary
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, ROWS, TARGET


def run(drafter, max_tokens=LIMITS, verifier="sample_match", **settings):
  method = dict(method=Speculative(drafter, verifier), method_params=PARAMS)
  return generate(TARGET, PARAMS, PROMPTS, max_tokens=max_tokens, **method, **settings).counters


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_a_target_that_drafts_its_own_tree_accepts_a_path_a_round(temperature):
  """First children that are sampled from the target's own distribution are always accepted.

  The draft model's cache is one token short after every round; were it wrong, q would not be p.
  """
  sampling = Sampling(temperature=temperature)
  found = run(ModelTree(TARGET, k_ary((2, 2, 1))), 25, "rrs_without", sampling=sampling)
  # 1 from the prefill, then 4 a round.
  assert found["target_forwards"] == 3 * (1 + 6)
  assert found["accepted_at_depth"] == [18, 18, 18] and found["accepted_at_place"] == [54, 0]
  assert found["drafted_at_depth"] == [36, 72, 72] and found["draft_forwards"] == 54


def test_likeliest_paths_go_as_deep_as_pays():
  """OPT-Tree's stop saves passes of the draft model, row by row."""
  passes = {}
  for name, drafter in (
    ("never", BestFirst(TARGET, 2, 3, 9, threshold=10.0)),
    ("sometimes", ROWS["likeliest paths of the target"].drafter),
  ):
    found = run(drafter)
    passes[name] = found["draft_forwards"] / (found["target_forwards"] - len(PROMPTS))
    assert (found["drafted_at_depth"][1] == 0) == (name == "never")
  assert passes["never"] == 1 < passes["sometimes"] < 3
