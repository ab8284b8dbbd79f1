"""Rows of a batch: 64 of them are those of single runs, and each may have a plan of its own."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import MaskedNetwork, denoise
from mtjax.diffusion.order import SampledProbability
from mtjax.diffusion.transfer import Threshold
from mtjax.models import Model
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling
from tests.diffusion.tiny_masked import CONFIG, MASK, PARAMS, PROMPTS, WHOLE

# No two positions of its canvases are nearly equal: XLA rounds other sizes of a batch otherwise, by
# 1e-7, and a weight that is changed by 3e-6 of it changes no row of the test.
MODEL = Model(dataclasses.replace(CONFIG, dim=16, head_dim=8, mlp_dim=32))
NETWORK = MaskedNetwork(MODEL, MASK)
WEIGHTS = jax.tree.map(lambda x: 2 * x, MODEL.init(jax.random.key(1)))


def test_64_ragged_rows_are_those_of_64_single_runs_bit_for_bit():
  rng = np.random.default_rng(0)
  prompts = [rng.integers(0, 10, 1 + row % 16).tolist() for row in range(64)]
  plans = [BlockPlan(8, 4, 2 * (1 + row % 4)) for row in range(64)]
  thresholds = rng.uniform(0.2, 0.9, 64).astype(np.float32)
  temperatures = np.where(np.arange(64) % 3, rng.uniform(0.5, 1.5, 64), 0.0).astype(np.float32)
  keys = jax.random.split(jax.random.key(5), 64)

  def rows(which):
    policy = DecidingPolicy(
      order=SampledProbability(), transfer=Threshold(threshold=thresholds[which])
    )
    return denoise(
      NETWORK,
      WEIGHTS,
      [prompts[row] for row in which],
      plan=[plans[row] for row in which],
      policy=policy,
      sampling=Sampling(temperature=temperatures[which], top_p=0.95),
      key=keys[np.array(which)],
      eos=[7],
    )

  together = rows(list(range(64)))
  assert len({tuple(row) for row in together.tokens}) > 40
  before = None
  for row in range(64):
    alone = rows([row])
    assert alone.tokens[0] == together.tokens[row]
    assert alone.decided_at[0] == together.decided_at[row]
    assert alone.passes[0] == together.passes[row]
    if row == 15:
      before = run.whole._cache_size()
  assert run.whole._cache_size() == before, "two sizes of canvases, and nothing compiled after them"


def test_a_row_has_its_own_length_and_steps():
  plans = [BlockPlan(8, 4, 4), BlockPlan(12, 4, 12)]
  both = denoise(WHOLE, PARAMS, PROMPTS, plan=plans)
  assert both.passes.tolist() == [4, 12] and [len(row) for row in both.tokens] == [8, 12]
  for row in range(2):
    alone = denoise(WHOLE, PARAMS, [PROMPTS[row]], plan=plans[row])
    assert alone.tokens[0] == both.tokens[row]
    assert alone.decided_at[0] == both.decided_at[row]


@pytest.mark.parametrize(
  "plan,message",
  [
    ([BlockPlan(8, 4, 4)], "plan has 1 plans for a batch of 2 rows: give one, or 2"),
    (
      [BlockPlan(8, 4, 4), BlockPlan(8, 8, 4)],
      "the rows of a batch must have one block_length, because it is a size of the program: got "
      "[4, 8] (length and steps may differ per row)",
    ),
  ],
)
def test_plans_that_do_not_fit_are_refused(plan, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    denoise(WHOLE, PARAMS, PROMPTS, plan=plan)


@pytest.mark.parametrize(
  "sizes,message",
  [
    ((10, 4, 4), "length must be a multiple of block_length, got 10 and 4"),
    ((8, 4, 1), "steps must be at least the number of blocks, 2 of 4 positions"),
    ((8, 4, 3), "steps must be a multiple of the number of blocks, 2, so that all have the same"),
    ((0, 4, 4), "length must be at least 1, got 0"),
    pytest.param((8, 4, 2.5), "steps", marks=pytest.mark.ill_typed),
  ],
)
def test_a_plan_that_does_not_divide_is_refused(sizes, message):
  with pytest.raises(ValueError, match=message):
    BlockPlan(*sizes)
