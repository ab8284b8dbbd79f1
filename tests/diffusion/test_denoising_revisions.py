"""Editing, WINO and ReMDM through the whole loop: passes that follow when no mask is left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import denoise, stream
from mtjax.diffusion.denoising.caches import Delayed
from mtjax.diffusion.denoising.guidance import ClassifierFree
from mtjax.diffusion.order import MaxProbability, RandomPositions, SampledProbability
from mtjax.diffusion.revise import EditTokens, KeepDecided, RemdmConf, RemdmRescale, Wino
from mtjax.diffusion.transfer import Ancestral, Threshold, WinoDraft
from mtjax.frontier import as_dense
from mtjax.sampling.logits import Sampling
from tests.diffusion.scripted import NETWORK, Scripted, script
from tests.diffusion.tiny_masked import BLOCKS, MASK, MODEL, PARAMS, PROMPTS, WHOLE

# Of a block of 4: passes 1 to 3 decide it, 2 and 4 edit it, 5 changes nothing.
EDITED = script(
  [(1, 0.95), (2, 0.95), (3, 0.5), (4, 0.4)],
  [(5, 0.95), (2, 0.95), (3, 0.96), (4, 0.5)],
  [(5, 0.95), (2, 0.95), (3, 0.99), (4, 0.97)],
  [(5, 0.95), (6, 0.92), (3, 0.99), (4, 0.97)],
  [(5, 0.95), (7, 0.80), (3, 0.99), (4, 0.97)],
)
WINO = DecidingPolicy(
  order=SampledProbability(), transfer=WinoDraft(threshold=0.3), revise=Wino(threshold=0.9)
)


def run_script(table, revise, length=4, **settings):
  transfer = Threshold(threshold=0.9)
  policy = DecidingPolicy(order=MaxProbability(), transfer=transfer, revise=revise)
  settings = dict(plan=BlockPlan(length, 4, length), policy=policy, cache=Scripted()) | settings
  return denoise(NETWORK, dict(real=table), [[1], [1]], **settings)


def test_a_block_is_edited_after_its_masks_are_gone():
  out = run_script(EDITED, EditTokens(threshold=0.9))
  assert out.passes.tolist() == [5, 5]
  assert out.tokens == [[5, 6, 3, 4]] * 2
  assert out.decided_at == [[2, 4, 2, 3]] * 2


def test_the_number_of_passes_that_only_edit_is_limited_per_row():
  out = run_script(EDITED, EditTokens(threshold=0.9, max_post_steps=[1, 16]))
  assert out.passes.tolist() == [4, 5] and out.tokens == [[5, 6, 3, 4]] * 2


def test_without_editing_a_block_ends_with_its_masks():
  out = run_script(EDITED, KeepDecided())
  assert out.passes.tolist() == [3, 3] and out.tokens == [[1, 2, 3, 4]] * 2


def test_the_next_block_begins_after_the_last_edit():
  table = jnp.concatenate([EDITED, EDITED + 0.0])
  out = run_script(table, EditTokens(threshold=0.9), length=8)
  assert out.passes.tolist() == [10, 10]
  assert out.decided_at[0] == [2, 4, 2, 3, 7, 9, 7, 8]


def test_an_edit_needs_more_than_its_threshold():
  out = run_script(EDITED, EditTokens(threshold=[0.79, 0.94]))
  # The first row edits in pass 5 as well, and then in none; the second one only in pass 2.
  assert out.tokens == [[5, 7, 3, 4], [5, 2, 3, 4]]
  assert out.passes.tolist() == [6, 4]


@pytest.mark.parametrize("network", [WHOLE, BLOCKS], ids=["whole", "block_causal"])
def test_shadow_entries_see_what_the_published_mask_lets_them_see(network):
  end, index = 12, np.arange(4, 8)
  canvas = network.canvas(jnp.zeros((1, 16), int), jnp.array([end]))
  frontier, rows = network.with_shadow(canvas, jnp.asarray(index)[None], jnp.ones((1, 4), bool))
  np.testing.assert_array_equal(rows, np.arange(16, 20)[None])
  found = np.array(as_dense(frontier)[0])
  # `attention_mask` of decoding_wino: ones, no shadow for the canvas, no own position for shadows.
  block = np.arange(16) // 4
  wanted = np.ones((20, 20), bool)
  wanted[:, end:16] = False
  wanted[:16, 16:] = False
  wanted[16:, index] = ~np.eye(4, dtype=bool)
  if network.block_length:
    wanted[:16, :16] &= block[None] <= block[:, None]
    wanted[16:, :16] &= block[None] <= 1
  np.testing.assert_array_equal(found, wanted)
  np.testing.assert_array_equal(frontier.position[0, 16:], index)
  np.testing.assert_array_equal(frontier.token[0, 16:], MASK)


@jax.jit
def forward_with_shadow(canvas, end, index):
  inside = jnp.ones(index.shape, bool)
  frontier, _ = WHOLE.with_shadow(WHOLE.canvas(canvas, end), index, inside)
  return WHOLE.logits(MODEL.forward(PARAMS, frontier))


def published_wino(prompt, length, block_length, draft, verify, size=24):
  """Returns text and number of passes of `decoding_wino` (2507.18578) in numpy, greedily."""
  x = np.array([*prompt, *[MASK] * length])
  steps, remasked = 0, 0
  for begin in range(len(prompt), len(x), block_length):
    index = np.arange(begin, begin + block_length)
    masked, last_accept = x[index] == MASK, 30
    while masked.any():
      steps += 1
      max_accept = min(max(int(masked.sum() * 0.7), 5), 20)
      canvas = np.full((1, size), MASK)
      canvas[0, : len(x)] = x
      logits = forward_with_shadow(canvas, np.array([len(x)]), index[None])
      p = np.array(jax.nn.softmax(logits))[0]
      best = p[index].argmax(-1)
      confidence = np.where(masked, p[index].max(-1), -np.inf)
      back = np.where(masked, np.inf, p[size:][np.arange(block_length), x[index]])
      accept = confidence > draft
      if accept.sum() > max_accept:
        accept = np.isin(np.arange(block_length), np.argsort(-confidence)[:max_accept])
      elif not accept.any():
        accept = np.arange(block_length) == confidence.argmax()
      again = np.zeros_like(masked)
      if accept.sum() > 1:
        again = back < verify
        if again.sum() >= last_accept:
          again = np.isin(np.arange(block_length), np.argsort(back)[: last_accept - 1])
      x[index[accept]] = best[accept]
      x[index[again]] = MASK
      masked = (masked & ~accept) | again
      last_accept, remasked = accept.sum(), remasked + again.sum()
  return x[len(prompt) :].tolist(), steps, remasked


@pytest.mark.parametrize("draft,verify", [(0.15, 0.1), (0.25, 0.9), (0.4, 0.2)])
def test_wino_is_the_published_loop(draft, verify):
  policy = DecidingPolicy(
    order=SampledProbability(), transfer=WinoDraft(threshold=draft), revise=Wino(threshold=verify)
  )
  out = denoise(WHOLE, PARAMS, PROMPTS, plan=BlockPlan(16, 8, 16), policy=policy)
  wanted = [published_wino(prompt, 16, 8, draft, verify) for prompt in PROMPTS]
  assert draft > 0.3 or sum(remasked for _, _, remasked in wanted) > 0, "none is masked again"
  assert out.tokens == [text for text, _, _ in wanted]
  assert out.passes.tolist() == [steps for _, steps, _ in wanted]


def test_wino_ends_even_if_verification_refuses_everything():
  sure = script([(token, 0.99) for token in range(1, 9)])
  refusing = script([(9, 0.99)] * 8)
  # decided 5, 3, 4, 2, 3, 1 and masked again 0, 4, 2, 3, 1, 0: at most 5 per pass, and always one
  # less masked again than the pass before decided.
  tables = dict(real=sure, shadow=refusing)
  out = denoise(NETWORK, tables, [[1]], plan=BlockPlan(8, 8, 8), policy=WINO, cache=Scripted())
  assert out.passes.tolist() == [6]
  assert out.tokens == [[1, 2, 3, 4, 5, 6, 7, 8]]


@pytest.mark.parametrize(
  "settings,message",
  [
    (
      dict(cache=Delayed()),
      "which Delayed does not compute: use Uncached, ExactBlocks for a block",
    ),
    (dict(guidance=ClassifierFree()), "which ClassifierFree does not guide: use Unguided"),
  ],
)
def test_wino_is_refused_without_shadow_entries(settings, message):
  settings = dict(network=WHOLE, plan=BlockPlan(8, 4, 8), policy=WINO) | settings
  with pytest.raises(ValueError, match=message):
    denoise(settings.pop("network"), PARAMS, PROMPTS, **settings)


@pytest.mark.parametrize("revise,keeps", [(RemdmRescale(eta=0.6), True), (RemdmConf(), False)])
def test_remdm_masks_again_and_keeps_the_planned_share_of_masks(revise, keeps):
  policy = DecidingPolicy(order=RandomPositions(), transfer=Ancestral(), revise=revise)
  table = script([(token, 0.3) for token in range(1, 9)])
  rows, steps = 128, 4
  states = stream(
    NETWORK,
    dict(real=table),
    [[1]] * rows,
    plan=BlockPlan(8, 8, steps),
    policy=policy,
    cache=Scripted(),
    sampling=Sampling(temperature=1.0),
  )
  canvases = [token[:, 1:9] for token, _ in states]
  assert len(canvases) == steps + 1 and not (canvases[-1] == MASK).any()
  pairs = zip(canvases, canvases[1:], strict=False)
  assert any(((new == MASK) & (old != MASK)).any() for old, new in pairs)
  shares = np.array([(canvas == MASK).mean() for canvas in canvases])
  # Of 1024 positions: the standard deviation of a share is at most 1/64.
  off = np.abs(shares - (1 - np.arange(steps + 1) / steps)).max() * 64
  assert off < 4 if keeps else off > 4
