"""mtjax-decode with uniform canvases, as users run it on the folder of a model."""

import json
import re

import jax
import pytest

import mtjax
from mtjax import checkpoints
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.models import CanvasLayer, DiffusionGemmaConfig, Model
from mtjax.report.canvas.record import canvas_run
from tests import tiny_model
from tests.forked import launch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The folder of a tiny DiffusionGemma with random weights and the bundled tokenizer."""
  path = tmp_path_factory.mktemp("model") / "tiny"
  model = Model(
    DiffusionGemmaConfig(
      vocab_size=4096, dim=16, heads=2, mlp_dim=16, experts=2, top_experts=1, expert_dim=8,
      layers=(CanvasLayer(1, 8, values="keys"),), canvas_length=4, max_position=64,
    )
  )  # fmt: skip
  params = model.init(jax.random.key(0))
  checkpoints.save(path, model, params, tokenizer=BpeTokenizer.bundled())
  return path


def test_a_folder_is_loaded_and_its_canvases_are_shown_and_kept(folder, tmp_path):
  out, html = tmp_path / "a.json", tmp_path / "a.html"
  code, shown, errors = launch(
    "experiments.decode", "--config=configs/decode/diffusion_gemma.py", "--config.denoise.length=8",
    f"--config.model={folder}", "--config.denoise.steps=3", "--prompt=Once upon", "--stream",
    f"--output={out}", f"--html={html}",
  )  # fmt: skip
  assert code == 0, errors
  run = json.loads(out.read_text())
  assert run["complete"] and run["passes"] == [6] and run["counters"]["commit_forwards"] == 1
  assert shown == run["rows"][0]["text"] + "\n" and html.read_text().startswith("<!")
  assert run["settings"]["denoise"]["rule"] == "accept_or_renoise"
  lines = [line for line in errors.splitlines() if line.startswith("pass ")]
  assert len(lines) == 7 and lines[1].count("░") == 4 and "approximate: " in errors
  frames, model = [], mtjax.load(str(folder))
  method = mtjax.denoiser("diffusion_gemma", length=8, steps=3)
  (same,), _ = model.denoise("Once upon", method=method, on_pass=frames.append)
  assert same.tokens == run["rows"][0]["tokens"]
  assert canvas_run(model, ["Once upon"], frames).prompts == run["prompts"]


@pytest.mark.parametrize(
  "rule", ["gidd", pytest.param("udlm", marks=pytest.mark.slow), "accept_or_renoise"]
)
def test_a_model_that_was_trained_with_uniform_noise(tmp_path, rule):
  path = tiny_model.save(tmp_path / "model", **tiny_model.MASKED, noise="hybrid")
  code, shown, errors = launch(
    "experiments.decode", "--config=gidd", f"--config.model={path}", "--config.denoise.length=8",
    f"--config.denoise.rule={rule}", "--config.denoise.steps=4", "--prompt=Once upon",
  )  # fmt: skip
  assert code == 0 and len(shown) > 1, errors


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ["--config=diffusion_gemma"],
      "no model is bundled for this method: give a DiffusionGemma,",
    ),
    (["--config=diffusion_gemma", "--config.model=target"], "'target' predicts 'next_token'"),
    (["--config=llada", "--config.model=FOLDER"], "needs a masked model, .* predicts 'canvas'"),
    (["--config=gidd", "--config.model=FOLDER"], "and the network has no mask"),
    (["--config=gidd", "--config.model=masked"], "'masked' was trained with masks alone"),
    (["--config=diffusion_gemma", "--config.model=FOLDER", "--config.temperature=1"], "rule"),
  ],
)
def test_a_mistake_is_answered_with_one_line(folder, arguments, message):
  arguments = [each.replace("FOLDER", str(folder)) for each in arguments]
  code, _, errors = launch("experiments.decode", *arguments, "--prompt=a")
  (line,) = errors.splitlines()
  assert code == 2 and line.startswith("mtjax: ")
  assert re.search(message, line), line
