"""mtjax-decode --config=set: an any-subset model continues prompts, and its canvas is shown."""

import json
import re

import jax
import numpy as np
import pytest

import mtjax
from mtjax.anysubset import Fused, SelfDraft, make_canvas
from mtjax.anysubset.infill import infill
from mtjax.diffusion.denoising import replay
from mtjax.models import TransformerConfig, uniform_layers
from mtjax.pretrained import load_pretrained
from mtjax.registry.denoising.filler import CanvasFiller
from mtjax.report.canvas.record import canvas_run
from mtjax.sampling.logits import Sampling
from mtjax.types import Exactness
from tests import tiny_model
from tests.forked import launch
from tests.test_constraint_launchers import ANY_SUBSET

PROMPTS = ["Once upon", "It was a dark night, and"]
WARM = Sampling(temperature=1.0)


def tiny_config(rows):
  return TransformerConfig(
    vocab_size=8, dim=8, heads=2, kv_heads=1, head_dim=4, mlp_dim=8, layers=uniform_layers(1),
    max_position=64, any_subset_rows=rows, **ANY_SUBSET,
  )  # fmt: skip


def canvas_of(config):
  is_target = np.tile(np.arange(32) > 3, (2, 1))
  return make_canvas(config, np.ones((2, 32), int), is_target)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tiny_model.save(tmp_path_factory.mktemp("model") / "tiny", **ANY_SUBSET)


@pytest.fixture(scope="module")
def text(folder):
  return load_pretrained(str(folder))


@pytest.mark.parametrize("fill", ["window:size=4:threshold=0.001", "self:window=3"])
def test_the_canvas_is_shown_filling_in_and_kept(folder, tmp_path, fill):
  out, html, gif = (tmp_path / name for name in ("a.json", "a.html", "a.gif"))
  code, shown, errors = launch(
    "experiments.decode", "--config=configs/decode/set.py", f"--config.model={folder}",
    "--config.denoise.length=8", f"--config.denoise.fill={fill}", "--prompt=Once upon",
    "--prompt=It was", "--stream", "--history", f"--output={out}", f"--html={html}", f"--gif={gif}",
  )  # fmt: skip
  assert code == 0, errors
  run = json.loads(out.read_text())
  assert shown.startswith("[0] Once upon\n") and "\n\n[1] It was\n" in shown
  lines = [line for line in errors.splitlines() if line.startswith("pass ")]
  assert lines[0].startswith("pass 0:") and lines[0].count("░") == 16 and "░" not in lines[-1]
  assert ("approximate: " in errors) == fill.startswith("window")
  assert run["exactness"] == ("approximate" if fill.startswith("window") else "lossless")
  assert gif.read_bytes()[:6] == b"GIF89a" and "data-entry" in html.read_text()
  for row, canvas in zip(run["rows"], run["canvases"], strict=True):
    last = {place: token for _, place, token in canvas["changes"]}
    assert [last[place] for place in range(8)][: len(row["tokens"])] == row["tokens"]


@pytest.mark.parametrize(
  "fill",
  [
    "window:size=4:threshold=0.001",
    "eso:steps=3",
    pytest.param("self:window=3", marks=pytest.mark.slow),
  ],
)
def test_texts_are_those_of_filling_and_of_each_row_alone(text, fill):
  method = mtjax.denoiser("set", length=8, fill=fill)
  keys = jax.random.split(jax.random.key(3), 2)
  settings = dict(method=method, sampling=WARM)
  frames = []
  completions, run = text.denoise(PROMPTS, key=keys, **settings)
  shown, streamed = text.denoise(PROMPTS, key=keys, on_pass=frames.append, **settings)
  assert shown == completions and streamed.decided_at == run.decided_at
  alone, own = text.denoise(PROMPTS[1], key=keys[1:], **settings)
  assert alone[0] == completions[1] and own.passes[0] == run.passes[1]
  assert run.counters["tokens"] == sum(map(len, run.tokens))
  assert run.counters["forwards"] == run.passes.sum()
  end = run.tokens[0][1]
  (ended, _), _ = text.denoise(PROMPTS, key=keys, eos=[end], **settings)
  assert ended.tokens == run.tokens[0][: 1 + run.tokens[0].index(end)] and ended.finish == "eos"
  record = canvas_run(text, PROMPTS, frames)
  assert record.prompts == [text.tokenizer.encode(prompt) for prompt in PROMPTS]
  assert frames[0].tokens == [[None] * 8] * 2
  if fill.startswith("eso"):
    drawn = []
    again, traced = text.denoise(PROMPTS, key=keys, trace=True, on_pass=drawn.append, **settings)
    assert again == completions and drawn == frames, "a round of eso is one pass"
    log_prob = traced.trace.passes.log_prob
    np.testing.assert_allclose(replay(text.model, text.params, traced.trace), log_prob, atol=1e-6)


def test_a_lossless_fill_of_a_model_with_queries_is_that_of_a_blank_at_the_end(text):
  """The order that the bundled kind of model was trained for is the lattice's."""
  prompt = text.tokenizer.encode("Once upon")
  method = CanvasFiller(length=6, fill=Fused(3))
  (completion,), _ = text.denoise([prompt], method=method)
  filled = infill(text, "Once upon___", lengths=6)
  ends = set(text.tokenizer.eos_ids)
  assert not ends & set(completion.tokens)
  assert filled.tokens[len(prompt) :] == completion.tokens


def test_the_order_is_the_models_own():
  kinds = {"two_stream": "lattice", "set_diffusion": "staggered", "eso": "eso"}
  canvases = {}
  for rows, name in kinds.items():
    config = tiny_config(rows)
    canvas = canvas_of(config)
    own = np.asarray(CanvasFiller(fill="self").ranks(config)(canvas, 5))
    same = np.asarray(CanvasFiller(fill="self", order=name).ranks(config)(canvas, 5))
    np.testing.assert_array_equal(own, same)
    canvases[name] = own
  assert (canvases["lattice"] != canvases["staggered"]).any()
  one = CanvasFiller(fill="self", order="staggered:set_size=1").ranks(tiny_config("set_diffusion"))
  np.testing.assert_array_equal(one(canvas, 5), canvases["lattice"])
  assert CanvasFiller().ranks(config) is None


def test_exactness_is_that_of_the_fill_method():
  assert (
    CanvasFiller().exactness is Exactness.APPROXIMATE and "independently" in CanvasFiller().reason
  )
  exact = mtjax.denoiser("set", fill=SelfDraft(8))
  assert exact.exactness is Exactness.LOSSLESS and exact.reason == ""
  assert exact.label(is_constrained=True) == (Exactness.LOSSLESS, "")
  assert mtjax.denoiser("first_hitting").label(is_constrained=True)[0] is Exactness.APPROXIMATE


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(length=0), "length must be at least 1, got 0"),
    (dict(fill="magic"), "fill method 'magic' is not one of: sequential, self, .* window, eso"),
    (dict(fill="window:threshold=1.5"), "threshold must be above 0, at most 1: got 1.5"),
    (dict(fill="self", order="magic"), "order 'magic' is not one of: lattice, random"),
    (dict(fill="self", order="lattice:size=3"), "order, lattice, has no setting size"),
    (dict(order="lattice"), "decides the order itself: leave order empty"),
    (dict(steps=3), "has no setting steps; it has: length, fill, order"),
  ],
)
def test_a_mistake_in_a_setting_is_named(settings, message):
  with pytest.raises(ValueError, match=message):
    mtjax.denoiser("set", **settings)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config.model=target"], "needs an any-subset model, .*: 'target' predicts 'next_token'"),
    (["--config.model=masked"], "needs an any-subset model, .*: 'masked' predicts 'masked'"),
    (["--config.denoise.transfer=keep"], "no field 'denoise.transfer'"),
    (["--prompt=" + "word " * 250], "a canvas of .* and the model has 255 positions"),
  ],
)
def test_a_mistake_is_answered_with_one_line(folder, arguments, message):
  if not any(argument.startswith("--config.model") for argument in arguments):
    arguments = [f"--config.model={folder}", *arguments]
  if not any(argument.startswith("--prompt=") for argument in arguments):
    arguments = [*arguments, "--prompt=a"]
  code, _, errors = launch("experiments.decode", "--config=set", *arguments)
  (line,) = errors.splitlines()
  assert code == 2 and line.startswith("mtjax: ")
  assert re.search(message, line), line
