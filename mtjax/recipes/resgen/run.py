"""The experiment: fit codes, train both decoders with equal compute, and compare what they make."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from mtjax.models import Params
from mtjax.models.model import count_parameters
from mtjax.recipes.resgen import flattened, network
from mtjax.recipes.resgen.data.examples import Dataset
from mtjax.recipes.resgen.data.images import read_digits
from mtjax.recipes.resgen.data.latents import Latents, fit_latents
from mtjax.recipes.resgen.data.speech import read_spoken
from mtjax.recipes.resgen.decode import Decoding, generate
from mtjax.recipes.resgen.judge import Judge, frechet, train_judge
from mtjax.recipes.resgen.loss import resgen_loss
from mtjax.recipes.resgen.network import ResGenConfig
from mtjax.recipes.resgen.quantizer import ResidualQuantizer, fit_quantizer
from mtjax.train.optimizers import OptimizerConfig, Schedule, make_optimizer

CLASSES = 10
Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Codec:
  """From blocks to codes and back."""

  latents: Latents
  quantizer: ResidualQuantizer

  def encode(self, blocks: Float[np.ndarray, "N L F"]) -> Int[np.ndarray, "N L D"]:
    """Returns the codes of rows."""
    return np.asarray(jax.jit(self.quantizer.encode)(self.latents.to_latents(blocks)))

  def decode(self, tokens: Int[np.ndarray, "N L D"]) -> Float[np.ndarray, "N L F"]:
    """Returns the blocks that the codes stand for."""
    return self.latents.to_blocks(np.asarray(self.quantizer.embed(jnp.asarray(tokens))))


def read_dataset(config: ConfigDict, data: Path) -> Dataset:
  """Returns the data set that `config.dataset` names: digits (data/mnist) or speech (data/fsdd)."""
  if config.dataset == "digits":
    return read_digits(data / "mnist", side=config.side, held_out=config.held_out)
  if config.dataset == "speech":
    return read_spoken(
      data / "fsdd", length=config.length, frames=config.frames, shifts=config.shifts
    )
  raise ValueError(f"dataset must be digits or speech, got {config.dataset!r}")


def fit_codec(config: ConfigDict, data: Dataset) -> Codec:
  """Returns the components and codebooks of the training rows."""
  blocks = data.train.blocks.reshape(-1, data.train.blocks.shape[-1])
  latents = fit_latents(blocks, config.width)
  rows = np.random.default_rng(config.seed).permutation(len(blocks))[: config.fit_vectors]
  quantizer = fit_quantizer(
    latents.to_latents(blocks[rows]), depth=config.depth, codes=config.codes, seed=config.seed
  )
  return Codec(latents, quantizer)


def train(
  loss: Callable[..., Any],
  params: Params,
  tokens: Int[np.ndarray, "N L D"],
  label: Int[np.ndarray, " N"],
  *,
  steps: int,
  batch: int,
  learning_rate: float,
  seed: int,
  name: str,
  tell: Tell,
) -> tuple[Params, dict[str, float]]:
  """Returns trained parameters, and the time and the last losses' mean.

  `loss` takes parameters, codes, classes and a key.
  """
  schedule = Schedule(steps, warmup=min(50, steps // 4), decay=steps // 2)
  optimizer = make_optimizer(OptimizerConfig(learning_rate=learning_rate), schedule)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def update(params, state, rows, number):
    key = jax.random.fold_in(jax.random.key(seed), number)
    value, grads = jax.value_and_grad(loss)(params, all_tokens[rows], all_labels[rows], key)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  all_tokens, all_labels = jnp.asarray(tokens), jnp.asarray(label)
  state, rng = optimizer.init(params), np.random.default_rng(seed)
  losses, begun, told = [], time.monotonic(), 0.0
  for step in range(steps):
    rows = rng.integers(len(tokens), size=batch)
    params, state, value = update(params, state, rows, step)
    losses.append(value)
    if time.monotonic() - told > 10 or step == steps - 1:
      tell(f"{name}: step {step + 1} of {steps}, loss {np.mean(jax.device_get(losses[-50:])):.3f}")
      told = time.monotonic()
  last = float(np.mean(jax.device_get(losses[-50:])))
  return params, dict(steps=steps, seconds=time.monotonic() - begun, loss=last)


@dataclasses.dataclass(frozen=True)
class ResGenOutcome:
  """What the experiment found, and the rows that were made, by the name of their maker."""

  rows: list[dict[str, Any]]
  made: dict[str, Float[np.ndarray, "N L F"]]
  facts: dict[str, Any]
  data: Dataset


def experiment(config: ConfigDict, data: Path, tell: Tell = print) -> ResGenOutcome:
  """Runs all of it. `config` is that of configs/recipes, `data` the folder of the public sets."""
  dataset = read_dataset(config, data)
  codec = fit_codec(config, dataset)
  tokens, label = codec.encode(dataset.train.blocks), dataset.train.label
  sizes = ResGenConfig(
    classes=CLASSES,
    length=tokens.shape[1],
    depth=config.depth,
    codes=config.codes,
    width=config.width,
    **config.network,
  )
  judge = train_judge(
    dataset.judged(dataset.train.blocks[: config.judge_rows]),
    label[: config.judge_rows],
    classes=CLASSES,
    epochs=config.judge_epochs,
    tell=tell,
  )
  facts = _codec_errors(codec, dataset)
  generator, cost = _train_resgen(config, sizes, codec, tokens, label, tell)
  facts |= cost
  causal, cost = _train_flattened(config, sizes, tokens, label, tell)
  facts |= cost
  scored = _Scored(judge, dataset, config.samples)
  wanted = np.arange(config.samples, dtype=np.int32) % CLASSES
  scored.real("real, held out", dataset.test.blocks)
  scored.real("real, as codes", codec.decode(codec.encode(dataset.test.blocks)))
  run = functools.partial(network.predict, sizes, generator)
  keys = jax.random.split(jax.random.key(config.seed + 1), config.samples)
  make = jax.jit(functools.partial(generate, run, codec.quantizer, length=sizes.length))
  settings = [Decoding(steps, config.order_noise, config.temperature) for steps in config.steps]
  settings += [Decoding(*one) for one in config.other_decodings]
  size = max(one.steps for one in settings)
  for one in settings:
    plan = one.plan(sizes.tokens, size)
    seconds, made = _timed(functools.partial(make, keys, jnp.asarray(wanted), plan))
    blocks = codec.decode(np.asarray(made.tokens))
    scored.generated(_name(one, config), blocks, wanted, int(made.forwards), seconds)
    tell(str(scored.rows[-1]))
  for temperature in config.flattened_temperatures:
    make = jax.jit(
      functools.partial(flattened.flattened_generate, sizes, causal, temperature=temperature)
    )
    seconds, made = _timed(lambda make=make: make(keys[0], jnp.asarray(wanted)))
    name = f"autoregressive, temperature {temperature:g}"
    scored.generated(name, codec.decode(np.asarray(made)), wanted, sizes.tokens, seconds)
    tell(str(scored.rows[-1]))
  return ResGenOutcome(scored.rows, scored.made, facts, dataset)


def _name(one: Decoding, config: ConfigDict) -> str:
  """Returns the name of a row: the steps, and what differs from the config's settings."""
  parts = [f"ResGen, {one.steps} step{'s' * (one.steps > 1)}"]
  if one.order_noise != config.order_noise:
    parts.append(f"order noise {one.order_noise:g}")
  if one.temperature != config.temperature:
    parts.append(f"temperature {one.temperature:g}")
  return ", ".join(parts)


def _codec_errors(codec: Codec, dataset: Dataset) -> dict[str, Any]:
  """Returns the share of the variance of held-out components that is left after each depth."""
  x = codec.latents.to_latents(dataset.test.blocks)
  tokens = jnp.asarray(codec.encode(dataset.test.blocks))
  total = np.square(x).sum()
  left = [
    float(np.square(x - np.asarray(codec.quantizer.embed(tokens, 0, d))).sum() / total)
    for d in range(1, codec.quantizer.depth + 1)
  ]
  return dict(left_by_depth=left)


def _train_resgen(config, sizes, codec, tokens, label, tell):
  rows = np.random.default_rng(0).choice(len(tokens), sizes.components)
  start = codec.quantizer.embed(jnp.asarray(tokens[rows, rows % sizes.length]))
  params = network.init_params(sizes, jax.random.key(config.seed), start)
  weights = count_parameters(params)
  loss = functools.partial(resgen_loss, sizes, codec.quantizer)
  params, cost = train(
    loss, params, tokens, label, steps=config.train_steps, batch=config.batch,
    learning_rate=config.learning_rate, seed=config.seed, name="ResGen", tell=tell,
  )  # fmt: skip
  return params, {f"resgen_{k}": v for k, v in dict(cost, parameters=weights).items()}


def equal_steps(sizes: ResGenConfig, steps: int) -> int:
  """Returns how many steps of the flattened model cost what `steps` of ResGen do, same batch."""
  outputs = sizes.components * (sizes.width + 2)
  one = network.training_flops(sizes.trunk(), sizes.length + 1, outputs)
  causal = flattened.flattened_model(sizes)
  other = network.training_flops(causal, sizes.tokens, causal.config.vocab_size)
  return max(1, round(steps * one / other))


def _train_flattened(config, sizes, tokens, label, tell):
  params = flattened.flattened_model(sizes).init(jax.random.key(config.seed))
  weights = count_parameters(params)

  def loss(params, tokens, label, key):
    del key
    return flattened.flattened_loss(sizes, params, tokens, label)

  steps = round(equal_steps(sizes, config.train_steps) * config.flattened_compute)
  params, cost = train(
    loss, params, tokens, label, steps=steps, batch=config.batch,
    learning_rate=config.learning_rate, seed=config.seed, name="autoregressive", tell=tell,
  )  # fmt: skip
  return params, {f"autoregressive_{k}": v for k, v in dict(cost, parameters=weights).items()}


def _timed(make):
  """Returns the seconds of the second call, which compiles nothing, and its result."""
  jax.block_until_ready(make())
  begun = time.monotonic()
  made = jax.block_until_ready(make())
  return time.monotonic() - begun, made


class _Scored:
  """Rows of figures, in order, and what they are figures of."""

  def __init__(self, judge: Judge, dataset: Dataset, samples: int):
    self.judge, self.dataset, self.samples = judge, dataset, samples
    self.rows: list[dict[str, Any]] = []
    self.made: dict[str, np.ndarray] = {}
    self.reference = judge.features(dataset.judged(dataset.test.blocks))

  def real(self, name, blocks):
    self._add(name, blocks, self.dataset.test.label, None, None)

  def generated(self, name, blocks, label, forwards, seconds):
    self._add(name, blocks, label, forwards, seconds)

  def _add(self, name, blocks, label, forwards, seconds):
    pictures = self.dataset.judged(blocks)
    self.made[name] = blocks
    self.rows.append(
      dict(
        name=name,
        forwards=forwards,
        accuracy=self.judge.accuracy(pictures, label),
        distance=frechet(self.judge.features(pictures), self.reference),
        seconds=None if seconds is None else round(seconds, 3),
        rows=len(label),
      )
    )
