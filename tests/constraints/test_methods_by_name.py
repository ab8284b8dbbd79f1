"""Methods of denoising by name with a regular expression: every text matches, and labels say so."""

import re

import pytest

import mtjax
from mtjax import constraints
from mtjax.sampling.logits import Sampling
from mtjax.types import Exactness
from tests.diffusion.test_texts import BLOCKS
from tests.diffusion.test_uniform_texts import PLAIN

PATTERN = "(yes|no), [a-d]{1,3}[.]"
RUNS = {
  "multi_bd": (BLOCKS, dict(machine="block_buffer:threshold=0.4:edit=0.3"), {}),
  "gidd": (PLAIN, dict(canvas_length=4, steps=3), dict(sampling=Sampling(top_k=3))),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_text_matches(name):
  pytest.importorskip("outlines_core", reason="needs mtjax[constraints]")
  model, settings, sampling = RUNS[name]
  method = mtjax.denoiser(name, length=12, **settings)
  constraint = constraints.regex(model.tokenizer, PATTERN)
  completions, run = model.denoise(
    ["Well?", "It was"] * 2, method=method, key=1, constraint=constraint, **sampling
  )
  for completion in completions:
    assert re.fullmatch(PATTERN, completion.text), completion.text
  assert run.trace is None and run.counters["tokens"] > 4 * len("no, a.")


@pytest.mark.parametrize(
  "name", ["d2f", "multi_bd", "dmax", "fast_dllm_v2", "diffusion_gemma", "gidd", "set", "llada"]
)
def test_a_constraint_on_canvases_is_labelled(name):
  exactness, reason = mtjax.denoiser(name).label(is_constrained=True)
  assert exactness is Exactness.APPROXIMATE
  assert ("the constraint restricts each position of a canvas" in reason) == (name != "set")
  assert mtjax.denoiser(name).label(is_constrained=False)[1] in reason
