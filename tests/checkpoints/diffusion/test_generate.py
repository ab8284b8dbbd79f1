"""Texts of imported models: those of the authors' loops, with forward passes by other code."""

import importlib.util
import json

import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.diffusion import BlockPlan
from mtjax.diffusion.denoising import MaskedNetwork, denoise
from tests.checkpoints.diffusion import oracles

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]
LENGTH, BLOCK, STEPS = 8, 4, 6

needs_torch = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)


def generate(forward, prompt, mask, shifted):
  """Returns the tokens of `generate` of ML-GSAI/LLaDA at temperature 0, without chance for a mask.

  With `shifted`, logits are moved by one entry first, as in Dream's generation_utils.py.
  """
  x = np.array([*prompt, *[mask] * LENGTH])
  steps = STEPS // (LENGTH // BLOCK)
  for begin in range(len(prompt), len(x), BLOCK):
    for step in range(steps):
      logits = np.array(forward(x))
      if shifted:
        logits = np.concatenate([logits[:1], logits[:-1]])
      logits[:, mask] = -np.inf
      probs = np.exp(logits - logits.max(-1, keepdims=True))
      confidence = probs.max(-1) / probs.sum(-1)
      confidence[(x != mask) | (np.arange(len(x)) >= begin + BLOCK)] = -np.inf
      count = BLOCK // steps + (step < BLOCK % steps)
      chosen = np.argsort(-confidence, kind="stable")[:count]
      x[chosen] = logits.argmax(-1)[chosen]
  return x[len(prompt) :].tolist()


def check(folder, forward, mask, shifted):
  model, params = checkpoints.load(folder)
  plan = BlockPlan(LENGTH, BLOCK, STEPS)
  out = denoise(MaskedNetwork.of(model), params, PROMPTS, plan=plan)
  assert out.tokens == [generate(forward, prompt, mask, shifted) for prompt in PROMPTS]


def test_a_llada_writes_the_text_of_its_authors_loop(tmp_path):
  tensors = oracles.random_tensors(oracles.llada_shapes(oracles.LLADA))
  oracles.write(tmp_path, oracles.LLADA, tensors)
  check(tmp_path, lambda x: oracles.llada_logits(oracles.LLADA, tensors, x), 43, False)


@needs_torch
def test_a_dream_writes_the_text_of_that_loop_with_its_shift(tmp_path):
  model = oracles.qwen("Qwen2", tie_word_embeddings=False)
  model.save_pretrained(tmp_path)
  file = tmp_path / "config.json"
  raw = json.loads(file.read_text())
  file.write_text(json.dumps(dict(raw, model_type="Dream", mask_token_id=41)))

  def forward(x):
    return oracles.qwen_logits(model, x[None], np.ones((len(x), len(x)), bool))[0]

  check(tmp_path, forward, 41, True)
