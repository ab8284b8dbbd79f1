"""Training of a DiffusionGemma: the loss is that of the decoder's passes, and a run decodes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtjax
from configs.train import canvas_diffusion as config_file
from mtjax import checkpoints, frontier
from mtjax import train as train_lib
from mtjax.diffusion.uniform import CausalEncoder, denoise_uniform
from mtjax.models import (
  DiffusionGemmaConfig,
  Model,
  TransformerConfig,
  canvas_layers,
  signal_of,
  uniform_layers,
)
from mtjax.train import config as config_lib
from mtjax.train.export import load_trained
from mtjax.train.losses import canvas_diffusion as loss_lib
from mtjax.train.losses.canvas_diffusion import (
  CanvasDiffusion,
  canvas_diffusion_loss,
  prompt_lengths,
)
from mtjax.train.step import init_state, make_step
from tests import forked

V, W = 11, 4
MODEL = Model(
  DiffusionGemmaConfig(
    vocab_size=V, dim=16, heads=2, mlp_dim=24, experts=2, top_experts=1, expert_dim=8,
    layers=canvas_layers(2, kv_heads=1, head_dim=8, window=3), canvas_length=W, max_position=64,
  )
)  # fmt: skip
SEGMENT = np.array([[1] * 9 + [2] * 5, [1] * 12 + [0] * 2], np.int32)
POSITION = np.array([[*range(9), *range(5)], [*range(12), 0, 0]], np.int32)


@pytest.fixture(scope="module")
def params():
  """Larger weights than those of initialisation, so that signals and windows matter."""
  weights = jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, MODEL.init(jax.random.key(0)))
  told = weights["self_conditioning"]["mlp"]
  return weights | {"self_conditioning": weights["self_conditioning"] | {"mlp": _times(5, told)}}


def _times(factor, weights):
  return jax.tree.map(lambda x: factor * x, weights)


def prepared(settings, model=MODEL):
  rng = np.random.default_rng(1)
  tokens = rng.integers(0, V, (2, 15)).astype(np.int32)
  batch = dict(tokens=tokens[:, :-1], targets=tokens[:, 1:], segment=SEGMENT, position=POSITION)
  return canvas_diffusion_loss(model, settings).prepare(batch, jax.random.key(4), 0)


def canvases_of(data):
  """Returns (row, index of its first entry, index of its text's first entry, size) of canvases."""
  first, counts, segment = (np.asarray(data[name]) for name in ("first", "counts", "segment"))
  out = []
  for row in range(len(first)):
    for index in np.flatnonzero(first[row] & counts[row]):
      text = index - int(data["position"][row, index])
      after = np.arange(first.shape[1]) > index
      ends = after & (first[row] | (segment[row] != segment[row, index]))
      end = np.flatnonzero(ends)
      out.append((row, index, text, (end[0] if len(end) else first.shape[1]) - index))
  return out


def nats_of(logits, token):
  logits = np.asarray(logits, np.float64)
  return np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, token[..., None], -1)[..., 0]


def by_the_decoder(params, data):
  """Returns the sums of the loss, with each canvas a row of its own after its cached prompt.

  They are that of the canvases, the same with the other rows told what a first pass predicted, that
  of next tokens, and the number of tokens in canvases.
  """
  network, found = CausalEncoder(MODEL), canvases_of(data)
  count, size = len(found), SEGMENT.shape[1]
  clean, noisy = np.asarray(data["tokens"]), np.asarray(data["noisy"])
  prompt, canvas, token = np.zeros((count, size), int), *np.zeros((2, count, W), int)
  for each, (row, index, text, width) in enumerate(found):
    prompt[each, : index - text] = clean[row, text:index]
    canvas[each, :width] = noisy[row, index : index + width]
    token[each, :width] = clean[row, index : index + width]
  rows, begin, text, width = np.array(found).T

  @jax.jit
  def passes(told):
    cache = network.start(params, prompt, begin - text)
    entries = frontier.bidirectional(canvas, start=begin - text, length=width)

    def logits(signal):
      return MODEL.forward(params, frontier.with_vectors(entries, signal), cache).logits

    none = jnp.zeros((count, W, MODEL.config.dim))
    signal = signal_of(MODEL.config, params, logits(none))
    return logits(jnp.where(told[:, None, None], signal, none))

  told, own = np.asarray(data["conditioned"])[rows], np.arange(W) < width[:, None]
  right, wrong = ((nats_of(passes(each), token) * own).sum() for each in (told, ~told))
  causal = jax.jit(lambda: MODEL.forward(params, frontier.packed(clean, SEGMENT)).logits)()
  follows = (SEGMENT[:, 1:] == SEGMENT[:, :-1]) & (SEGMENT[:, 1:] > 0)
  return right, wrong, (nats_of(causal[:, :-1], clean[:, 1:]) * follows).sum(), own.sum()


def test_the_loss_is_that_of_the_decoders_passes(params):
  settings = CanvasDiffusion(conditioned=0.5, causal=0.3)
  data = prepared(settings)
  assert sorted(np.asarray(data["conditioned"])) == [False, True], "half of the rows"
  total = jax.jit(canvas_diffusion_loss(MODEL, settings).total)(params, data)
  canvas, wrong, causal, count = by_the_decoder(params, data)
  assert float(total.weight) == count == int(np.sum(data["counts"]))
  assert float(total.parts["canvas"]) == pytest.approx(canvas, rel=2e-5)
  assert float(total.parts["next_token"]) == pytest.approx(causal, rel=2e-5)
  assert float(total.sum) == pytest.approx(canvas + 0.3 * causal, rel=2e-5)
  assert wrong != pytest.approx(canvas, rel=1e-3), "the proof sees which rows are told"


def test_canvases_begin_after_a_prompt_of_any_length_and_fill_their_texts():
  sizes = set()
  position = jnp.asarray(np.tile(POSITION, (40, 1)))
  starts = np.asarray(prompt_lengths(jax.random.key(2), position, W))
  assert set(starts[::2, 0]) == set(starts[1::2, 0]) == {1, 2, 3, 4}
  assert (starts[::2, :9] == starts[::2, :1]).all() and (starts[::2, 9:] == starts[::2, 9:10]).all()
  data = prepared(CanvasDiffusion())
  for row, index, text, size in canvases_of(data):
    sizes.add(size)
    end = 12 if row else (14 if text else 9)
    assert size == min(W, end - index) and index > text
  assert W in sizes
  short = np.array([[0, 1, 0, 1, 2]])
  assert (np.asarray(prompt_lengths(jax.random.key(0), jnp.asarray(short), W))[0, :2] == 1).all()


def test_no_gradient_goes_through_the_first_pass(params, monkeypatch):
  settings = CanvasDiffusion(conditioned=1.0, causal=0.0)
  data, kept = prepared(settings), []

  def gradient():
    loss = canvas_diffusion_loss(MODEL, settings)
    return jax.jit(jax.grad(lambda params: loss.total(params, data).sum))(params)

  def keep(*arguments):
    kept.append(signal_of(*arguments))
    return kept[-1]

  with monkeypatch.context() as patch:
    patch.setattr(loss_lib, "signal_of", keep)
    signal = jax.jit(
      lambda p: (canvas_diffusion_loss(MODEL, settings).total(p, data).sum, kept.pop())
    )(params)[1]
  found = gradient()
  with monkeypatch.context() as patch:
    patch.setattr(loss_lib, "signal_of", lambda *arguments: signal)
    expected = gradient()
  with monkeypatch.context() as patch:
    patch.setattr(jax.lax, "stop_gradient", lambda x: x)
    through = gradient()

  def distance(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs)

  assert distance(found, expected) < 1e-4
  assert distance(through, expected) > 1e-2, "the proof sees a gradient of the first pass"


def test_a_trained_model_decodes_what_an_untrained_one_does_not():
  """The text repeats four of eight letters, so the best unigram model needs log(4) nats."""
  config = dataclasses.replace(MODEL.config, vocab_size=8, logit_soft_cap=None)
  model, settings = Model(config), CanvasDiffusion(causal=0.0)
  text = (np.arange(17) + np.arange(16)[:, None]) % 4
  shape = (16, 16)
  batch = dict(
    tokens=text[:, :-1].astype(np.int32),
    targets=text[:, 1:].astype(np.int32),
    segment=np.ones(shape, np.int32),
    position=np.tile(np.arange(16, dtype=np.int32), (16, 1)),
  )
  optimizer = optax.adam(1e-2)
  step = make_step(canvas_diffusion_loss(model, settings), optimizer)
  state = init_state(model, optimizer, seed=0)
  train = jax.jit(lambda state: jax.lax.scan(lambda s, _: step(s, batch), state, None, 150))
  trained, metrics = train(state)
  losses = np.asarray(metrics["loss"])
  assert losses[0] > np.log(4) > 2 * losses[-10:].mean(), losses[-10:]

  def right(params):
    prompts = [[row % 4, (row + 1) % 4] for row in range(8)]
    run = denoise_uniform(CausalEncoder(model), params, prompts, length=8, steps=6, key=1)
    expected = [[(row + 2 + i) % 4 for i in range(8)] for row in range(8)]
    return np.mean(np.array(run.tokens) == np.array(expected))

  assert right(trained.params) > 0.9 and right(state.params) < 0.5


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
  """The folder of a run of the config's smallest size, and what it trained."""
  folder = tmp_path_factory.mktemp("canvases")
  config = config_file.tiny()
  config.data.cache_dir = str(folder / "tokens")
  config.save_every = 2
  _, params = train_lib.train(config, folder / "run")
  return folder, params


def test_a_run_comes_back_and_decodes_from_a_launcher(run_folder):
  folder, params = run_folder
  text, step = load_trained(folder / "run")
  assert step == 4 and text.model.config.predicts == "canvas"
  jax.tree.map(np.testing.assert_array_equal, text.params, params)
  line = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[0])
  assert {"loss", "canvas", "next_token", "noisy"} <= line.keys()
  checkpoints.save(folder / "model", text.model, text.params, tokenizer=text.tokenizer)
  code, shown, errors = forked.launch(
    "experiments.decode", "--config=configs/decode/diffusion_gemma.py", "--config.denoise.steps=2",
    f"--config.model={folder / 'model'}", "--config.denoise.length=4", "--prompt=It",
  )  # fmt: skip
  assert code == 0, errors
  loaded = mtjax.load(str(folder / "model"))
  method = mtjax.denoiser("diffusion_gemma", length=4, steps=2)
  (same,), _ = loaded.denoise("It", method=method)
  assert shown == same.text + "\n"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"objective": "next_token"}, "trains models of model.predicts 'next_token', .* has 'canvas'"),
    ({"model.window": 0}, "window must be a whole number and at least 1"),
    ({"model.full_every": 0}, "full_every must be at least 1, got 0"),
    ({"model.kv_heads": 3}, "2 heads do not divide among 3"),
    ({"model.block_length": 4}, "model.block_length: a model of the kind 'diffusion_gemma' has no"),
    ({"canvas_diffusion.conditioned": 1.5}, "conditioned must be a share from 0 to 1, got 1.5"),
    ({"canvas_diffusion.causal": -1.0}, "causal must be at least 0, got -1.0"),
    ({"canvas_diffusion.schedule": "step"}, "step"),
    ({"data.eval_sources": ("a=builtin:tinyshakespeare",)}, "a model of canvases is not made for"),
  ],
)
def test_mistakes_are_named(changes, message):
  config = config_file.tiny()
  config.update_from_flattened_dict(changes)
  if "objective" in changes:
    del config.canvas_diffusion
  with pytest.raises(ValueError, match=message):
    config_lib.read(config.to_dict())


def test_other_models_are_refused():
  other = Model(TransformerConfig(V, 16, 2, 1, 8, 24, uniform_layers(1)))
  with pytest.raises(ValueError, match="model.kind must be 'diffusion_gemma', got 'transformer'"):
    canvas_diffusion_loss(other, CanvasDiffusion())
