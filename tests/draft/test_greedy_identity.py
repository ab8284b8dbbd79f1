"""Every drafter on real prompts: the bundled target's greedy text; where bfloat16 leaves it.

`make test-slow ARGS=tests/draft` runs the 64 prompts; a few minutes a drafter on two cores.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.decode import ar
from configs.train import shakespeare
from mtjax import checkpoints, frontier
from mtjax.decode.generation import generate
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.registry.methods import DRAFTERS
from mtjax.report.comparison import contenders
from mtjax.train import train
from mtjax.train.export import load_trained
from tests.draft.real_prompts import MODULES, real_prompts

ROOT = Path(__file__).parents[2]
TOKENS, BATCH = 128, 16


def texts(text, method, params):
  """Greedy continuations of all prompts, 16 rows at a time, and the counters' sums."""
  ids = [text.tokenizer.encode(prompt) for prompt in real_prompts()]
  rows, forwards, accepted = [], 0, 0
  for start in range(0, len(ids), BATCH):
    batch = ids[start : start + BATCH]
    settings = dict(method=method, method_params=params) if method else {}
    out = generate(text.model, text.params, batch, max_tokens=TOKENS, **settings)
    rows += [(p, t) for p, t in zip(batch, out.tokens, strict=True)]
    forwards += out.counters["target_forwards"]
    accepted += sum(out.counters.get("accepted_at_depth", []))
  return rows, sum(len(tokens) for _, tokens in rows) / forwards, accepted


def loaded(**settings):
  return for_decoding(load_pretrained("target", **settings))


@pytest.fixture(scope="module")
def plain():
  text = loaded()
  return text, texts(text, None, None)[0]


def test_the_prompts_are_64_different_ones():
  prompts = real_prompts()
  assert len(prompts) == len(set(prompts)) == 64 and min(map(len, prompts)) > 30


@pytest.fixture
def folder_of_models(tmp_path, monkeypatch):
  """Makes models/shakespeare, a model of bytes, of what the target writes: 4 minutes.

  Of Shakespeare alone it writes too little that the target would: 1.03 tokens a forward.
  """
  monkeypatch.chdir(tmp_path)
  modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
  modules = [path.read_text(errors="replace") for path in modules if path.stem not in MODULES]
  Path("begun.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in modules))
  command = [sys.executable, "-m", "experiments.write_texts", "--sources=file:begun.jsonl"]
  command += ["--texts=1024", "--output=written.jsonl"]
  subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
  config = shakespeare.get_config()
  config.data.update(sources=("file:written.jsonl",), eval_sources=(), cache_dir=str(tmp_path))
  train(config, "runs/shakespeare")
  trained, _ = load_trained("runs/shakespeare")
  checkpoints.save("models/shakespeare", trained.model, trained.params, tokenizer=trained.tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAFTERS)
def test_greedy_text_is_that_of_plain_decoding(plain, name, request):
  if name == "cross_vocabulary":
    request.getfixturevalue("folder_of_models")
  text, expected = plain
  one = contenders([name], ar.get_config(), text)[name]
  found, per_forward, accepted = texts(text, one.method, one.params)
  wrong = [row for row in range(64) if found[row] != expected[row]]
  assert not wrong, f"{name} writes another text for prompts {wrong}"
  assert accepted > 0 and per_forward > 1.05, "no draft was of use: this shows nothing"


@pytest.mark.slow
def test_where_bfloat16_differs_the_two_tokens_are_as_good_as_equal():
  """Trees and single tokens round differently in bfloat16: only near-ties may change."""
  text = loaded(dtype="bfloat16")
  expected = texts(text, None, None)[0]
  one = contenders(["lookup"], ar.get_config(), text)["lookup"]
  found = texts(text, one.method, one.params)[0]
  forward = jax.jit(text.model.forward)
  margins = []
  for (prompt, tokens), (_, others) in zip(expected, found, strict=True):
    differs = np.flatnonzero(np.array(tokens) != np.array(others))
    if differs.size:
      rows = np.zeros((1, 512), np.int32)
      whole = [*prompt, *tokens[: differs[0]]][-512:]
      rows[0, : len(whole)] = whole
      last = jnp.array([[len(whole) - 1]])
      logits = forward(text.params, frontier.causal(jnp.asarray(rows)), None, last).logits[0, 0]
      pair = logits[tokens[differs[0]]], logits[others[differs[0]]]
      # One step of bfloat16 at the height of these logits.
      step = 2.0 ** (np.floor(np.log2(float(jnp.abs(logits).max()))) - 7)
      margins.append(abs(float(pair[0] - pair[1])) / step)
  print(f"{len(margins)} of 64 texts differ; margins in steps of bfloat16: {np.round(margins, 1)}")
  assert all(margin <= 4 for margin in margins), margins
