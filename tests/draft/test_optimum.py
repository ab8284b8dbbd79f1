"""The audit of a run: what it counts is what was accepted, and no lossless run passes its bound."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.decode.audit import Audited, audited
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import S2D, GrownTree, ModelChain, ModelTree, PromptLookup
from mtjax.report.terminal import audit_tables
from mtjax.sampling.logits import Sampling
from mtjax.trees import encodings, k_ary
from mtjax.types import DraftScheme
from mtjax.verify import VERIFIERS
from tests.draft.drafters import (
  LAYERED,
  LAYERED_PARAMS,
  LIMITS,
  PARAMS,
  PROMPTS,
  SMALL,
  SMALL_PARAMS,
  TARGET,
)

WARM = Sampling(temperature=1.2)
MANY = dict(prompts=[[1, 2]] * 256, max_tokens=16, sampling=WARM)
UNEVEN = encodings.from_parents([-1, 0, 0, 1, 1, 2, 3])


def run(drafter, verifier, params=None, prompts=PROMPTS, node_wise=None, **settings):
  method, of_method, audit = audited(Speculative(drafter, verifier), params)
  audit.node_wise = audit.node_wise if node_wise is None else node_wise
  out = generate(TARGET, PARAMS, prompts, method=method, method_params=of_method, **settings)
  return audit, out


def is_passed(rows):
  """Returns whether a mean lies above its bound, by more than four standard deviations."""
  return any(row["gap"] < -4 / 2.576 * row["error"] for row in rows)


def tree(scheme, topology=UNEVEN):
  return ModelTree(SMALL, topology, scheme)


CHAIN = ModelChain(SMALL, 3)
CASES = {
  "block": (CHAIN, "block"),
  "delta": (CHAIN, "delta"),
  "an unsure chain": (ModelChain(SMALL, 3, confidence=0.09), "block"),
  "traversal": (tree(DraftScheme.WITHOUT_REPLACEMENT), "traversal"),
  "with replacement": (tree(DraftScheme.WITH_REPLACEMENT), "traversal"),
  "grown": (GrownTree(SMALL, 6, 3, 3, 2), "traversal"),
  "sorted": (S2D(LAYERED, (1, 2, 3), (0.12, 0.12, 0.1), 4), "block"),
  "kseq": (tree(DraftScheme.WITH_REPLACEMENT, k_ary((2, 1))), "kseq"),
  "greedy plus one": (tree(DraftScheme.GREEDY_PLUS_ONE), "greedy_plus_one"),
  "pair": (tree(DraftScheme.PAIR), "spechub"),
  "grown, node by node": (GrownTree(SMALL, 6, 3, 3, 2), "rrs_without"),
  "lookup": (PromptLookup(length=3, branches=2), "sample_match"),
}
FAST = ("block", "traversal", "grown")


def params_of(drafter):
  return {"Sorted": LAYERED_PARAMS, "PromptLookup": None}.get(type(drafter).__name__, SMALL_PARAMS)


@pytest.mark.parametrize(
  "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_no_run_passes_its_bound(name):
  drafter, verifier = CASES[name]
  audit, out = run(drafter, verifier, params_of(drafter), **MANY)
  report = audit.report()
  *depths, total = report["paths"]
  assert not is_passed(report["paths"]) and not is_passed(report["nodes"])
  rounds = len(audit.accepted)
  counts = np.array(out.counters["accepted_at_depth"])
  found = [row["accepted"] * rounds for row in depths]
  assert found == pytest.approx(counts[: len(depths)].tolist()) and not counts[len(depths) :].any()
  assert total["accepted"] * rounds == pytest.approx(counts.sum())
  assert 0 < total["error"] < 0.2
  assert (report["nodes"] == []) == (verifier in ("block", "traversal"))


def test_the_node_wise_optimum_is_passed_by_block():
  """Taken as a bound of whole paths, as it once was, it is seen to be wrong."""
  audit, _ = run(CHAIN, "block", SMALL_PARAMS, node_wise=True, **MANY)
  first, *deeper = audit.report()["nodes"]
  assert not is_passed([first]) and is_passed(deeper)
  assert not is_passed(audit.report()["paths"])


def test_a_chain_of_one_draft_reaches_the_bound_and_delta_falls_short():
  """For one draft from q, rejection accepts 1 - TV(p, q): no rule does better (2211.17192)."""
  audit, _ = run(ModelChain(SMALL, 1), "chain", SMALL_PARAMS, **MANY)
  best, total = audit.report()["paths"]
  assert abs(best["gap"]) < 2 * best["error"] < 0.1 and total["gap"] == pytest.approx(best["gap"])
  (node,) = audit.report()["nodes"]
  assert node["optimum"] == pytest.approx(best["bound"])
  audit, _ = run(ModelChain(SMALL, 1), "delta", SMALL_PARAMS, **MANY)
  assert audit.report()["paths"][0]["gap"] > 2 * best["error"]


def test_greedy_acceptance_is_the_bound():
  audit, out = run(PromptLookup(length=3, branches=2), "sample_match", max_tokens=LIMITS)
  report = audit.report()
  *depths, _ = report["paths"]
  counts = [row["accepted"] * len(audit.accepted) for row in depths]
  assert counts == pytest.approx(out.counters["accepted_at_depth"][: len(counts)])
  assert sum(counts) > 0
  # Greedy probs are on one token: it is among the drafts or it is not.
  for row in [*report["paths"], *report["nodes"]]:
    assert row["gap"] == pytest.approx(0, abs=1e-6)


def test_rows_that_do_not_sample_are_exact_beside_one_that_does():
  """Their drafts are the best tokens, of which q says nothing."""
  drafter, sampling = tree(DraftScheme.WITHOUT_REPLACEMENT), Sampling(temperature=[0.0, 0.0, 1.2])
  # The third row ends before it drafts.
  settings = dict(sampling=sampling, max_tokens=[20, 20, 1])
  audit, _ = run(drafter, "rrs_without", SMALL_PARAMS, **settings)
  report = audit.report()
  for row in [*report["paths"], *report["nodes"]]:
    assert row["gap"] == pytest.approx(0, abs=1e-6)


def test_a_draft_model_that_is_the_target_has_a_bound_of_one():
  audit, _ = run(ModelChain(TARGET, 2), "chain", PARAMS, max_tokens=21, sampling=WARM)
  report = audit.report()
  for row in report["nodes"]:
    assert row["optimum"] == pytest.approx(1, abs=1e-5)
  for row in report["paths"]:
    assert row["gap"] == pytest.approx(0, abs=1e-5)


def test_what_has_no_bound_is_refused():
  with pytest.raises(ValueError, match="typical changes the distribution of the text"):
    audited(Speculative(PromptLookup(length=2), "typical"), None)
  with pytest.raises(ValueError, match="this verifier changes the distribution of the text"):
    audited(Speculative(PromptLookup(length=2), VERIFIERS["typical"]), None)


def test_a_verifier_decodes_and_is_audited_without_a_name():
  # The named one's program is that of another test here.
  verifiers = ("chain", VERIFIERS["chain"])
  runs = [run(ModelChain(SMALL, 1), one, SMALL_PARAMS, **MANY) for one in verifiers]
  (named, text), (own, own_text) = runs
  assert own_text.tokens == text.tokens
  assert own.report() == named.report()


def test_the_tables_show_intervals_and_what_is_loose():
  row = dict(count=1000, accepted=0.5, gap=0.25, error=0.0625)
  report = dict(paths=[dict(row, depth=1, bound=0.75)], nodes=[dict(row, depth=1, optimum=0.75)])
  paths, nodes = audit_tables(dict(report, grown=True))
  assert [list(column.cells) for column in paths.columns] == [
    ["1"], ["1,000"], ["0.500"], ["0.750"], ["+0.250 ± 0.062"],
  ]  # fmt: skip
  assert "loose" in str(paths.caption)
  assert nodes.columns[3].header == "node-wise optimum"
  (alone,) = audit_tables(dict(report, nodes=[], grown=False))
  assert alone.caption is None


def test_an_audit_that_is_gone_is_said():
  with pytest.raises(Exception, match="the host store of this drafter is gone"):
    generate(
      TARGET, PARAMS, [[1, 2]], max_tokens=4, method=Audited(PromptLookup(length=2)),
      method_params=(jnp.int32(-1), None),
    )  # fmt: skip
