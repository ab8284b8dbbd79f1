"""Rows of machines: 64 ragged ones with settings of their own are those of single runs."""

import jax
import numpy as np
import pytest

from mtjax.diffusion.denoising import MaskedNetwork, denoise_by_blocks
from mtjax.diffusion.denoising.machines import BlockBuffer, Pipeline, SubBlocks, TokenMerge
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling
from tests.diffusion.test_denoising_rows import MODEL, WEIGHTS
from tests.diffusion.tiny_masked import MASK

ROWS = 64
# No row has two positions whose probabilities differ by a rounding alone, which the size of a batch
# may change: of another seed, a greedy row has two masks that are equal to 7 digits.
RNG = np.random.default_rng(1)
PROMPTS = [RNG.integers(0, 10, 1 + row % 8).tolist() for row in range(ROWS)]
LENGTHS = [4 * (1 + row % 4) for row in range(ROWS)]
KEYS = jax.random.split(jax.random.key(5), ROWS)
TEMPERATURES = np.where(np.arange(ROWS) % 3, RNG.uniform(0.5, 1.5, ROWS), 0.0).astype(np.float32)
HIGH, LOW, SHARES = (
  RNG.uniform(*bounds, ROWS).astype(np.float32) for bounds in ((0.3, 0.9), (0.2, 0.6), (0, 0.6))
)
ALIGNED = MaskedNetwork(MODEL, MASK, block_length=4)
SHIFTED = MaskedNetwork(MODEL, MASK, shifted=True, block_length=4)
MACHINES = {
  "pipeline": (
    ALIGNED,
    lambda rows: Pipeline(
      add=SHARES[rows], activate=HIGH[rows], threshold=LOW[rows], in_flight=3
    ),
  ),
  "edited buffer": (
    ALIGNED,
    lambda rows: BlockBuffer(
      add=SHARES[rows], activate=HIGH[rows], threshold=LOW[rows], edit=HIGH[rows],
      stability=SHARES[rows], max_post_steps=rows % 5, in_flight=3,
    ),
  ),
  "merged tokens": (
    ALIGNED,
    lambda rows: TokenMerge(
      threshold=LOW[rows], confident=HIGH[rows], add=SHARES[rows], max_post_steps=rows % 5,
      in_flight=2,
    ),
  ),
  "sub-blocks": (SHIFTED, lambda rows: SubBlocks(threshold=LOW[rows], sub_block=2)),
}  # fmt: skip


def rows_of(name, which, keys=KEYS):
  network, made = MACHINES[name]
  which = np.array(which)
  return denoise_by_blocks(
    network,
    WEIGHTS,
    [PROMPTS[row] for row in which],
    length=[LENGTHS[row] for row in which],
    machine=made(which),
    sampling=Sampling(temperature=TEMPERATURES[which], top_p=0.95),
    key=keys[which],
    eos=[7],
  )


# One machine that adds blocks and changes its mind, and one over shifted logits; `make test-slow`
# runs the others.
@pytest.mark.parametrize(
  "name",
  [
    name if name in ("edited buffer", "sub-blocks") else pytest.param(name, marks=pytest.mark.slow)
    for name in MACHINES
  ],
)
def test_64_ragged_rows_are_those_of_64_single_runs_bit_for_bit(name):
  """The first 8 rows have canvases of both sizes, with and without a temperature.

  Nothing is compiled after them: one program for each.
  """
  together = rows_of(name, range(ROWS))
  assert len({tuple(row) for row in together.tokens}) > 48
  assert len(set(together.passes.tolist())) > 4
  sizes = run.whole._cache_size()
  for row in range(ROWS):
    alone = rows_of(name, [row])
    assert alone.tokens[0] == together.tokens[row]
    assert alone.decided_at[0] == together.decided_at[row]
    assert alone.passes[0] == together.passes[row]
    if row == 7:
      sizes = run.whole._cache_size() - sizes
      before = run.whole._cache_size()
  assert sizes == 4 and run.whole._cache_size() == before


def test_a_row_with_the_key_or_the_settings_of_another_is_another():
  """Negative control: keys and settings are read by row."""
  together = rows_of("edited buffer", range(ROWS))
  other = rows_of("edited buffer", range(ROWS), KEYS[::-1])
  warm = TEMPERATURES > 0
  differ = [a != b for a, b in zip(together.tokens, other.tokens, strict=True)]
  assert not np.any(np.array(differ)[~warm]) and np.mean(np.array(differ)[warm]) > 0.5
