"""The audit of a run: what it counts is what was accepted, what it expects is what can be."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.decode import generate
from mtjax.draft import ModelChain, PromptLookup, host
from mtjax.optimum import Audit, Audited
from mtjax.sampling import Sampling
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, SMALL, SMALL_PARAMS, TARGET

WARM = Sampling(temperature=1.2)


def audited(drafter, verifier, params=None, prompts=PROMPTS, **settings):
  audit = Audit(drafter.height)
  method = Audited(drafter, verifier)
  handle = host.register(audit)
  out = generate(TARGET, PARAMS, prompts, method=method, method_params=(handle, params), **settings)
  return audit, out


def test_counts_are_those_of_the_run_and_greedy_acceptance_is_the_optimum():
  audit, out = audited(PromptLookup(length=3, branches=2), "sample_match", max_tokens=LIMITS)
  assert audit.accepted.tolist() == out.counters["accepted_at_depth"]
  assert sum(audit.accepted) > 0
  # A greedy law is on one token: it is among the drafts or it is not.
  np.testing.assert_allclose(audit.optimum, audit.accepted)


def test_a_draft_model_that_is_the_target_has_an_optimum_of_one():
  audit, _ = audited(ModelChain(TARGET, 2), "chain", PARAMS, max_tokens=20, sampling=WARM)
  for row in audit.rows():
    assert row["optimum"] == pytest.approx(1, abs=1e-5)
    assert row["gap"] == pytest.approx(0, abs=1e-5)


def test_a_chain_of_one_draft_reaches_the_optimum_and_delta_falls_short():
  """For one draft from q, rejection accepts 1 - TV(p, q): no rule does better (2211.17192)."""
  settings = dict(prompts=[[1, 2]] * 1024, max_tokens=12, sampling=WARM)
  audit, _ = audited(ModelChain(SMALL, 1), "chain", SMALL_PARAMS, **settings)
  (best,) = audit.rows()
  noise = 4 / np.sqrt(best["positions"])  # four standard deviations and more
  assert abs(best["gap"]) < noise < 0.06
  audit, _ = audited(ModelChain(SMALL, 1), "delta", SMALL_PARAMS, **settings)
  (worse,) = audit.rows()
  assert worse["gap"] > noise


def test_an_audit_that_is_gone_is_said():
  with pytest.raises(Exception, match="the host store of this drafter is gone"):
    generate(
      TARGET, PARAMS, [[1, 2]], max_tokens=4, method=Audited(PromptLookup(length=2)),
      method_params=(jnp.int32(-1), None),
    )  # fmt: skip
