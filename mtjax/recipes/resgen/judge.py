"""Quality of what was generated: a small classifier's accuracy, and a Frechet distance.

The classifier is trained on the real training rows. Accuracy is the share of generated rows that it
gives the class that they were generated for; the distance is between Gaussians of its features of
generated and of real held-out rows (FID 1706.08500, with this network in Inception's place).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Judge:
  """A trained classifier."""

  params: PyTree

  def features(self, pictures: Float[np.ndarray, "N H W"]) -> Float[np.ndarray, "N C"]:
    """Returns the features before the last layer."""
    return self._batched(pictures)[0]

  def accuracy(self, pictures: Float[np.ndarray, "N H W"], label: Int[np.ndarray, " N"]) -> float:
    """Returns the share of pictures that it gives their label."""
    return float(np.mean(self._batched(pictures)[1] == label))

  def _batched(self, pictures):
    features, classes = [], []
    for first in range(0, len(pictures), _BATCH):
      x, logits = _classify(self.params, jnp.asarray(pictures[first : first + _BATCH]))
      features.append(np.asarray(x))
      classes.append(np.asarray(jnp.argmax(logits, axis=-1)))
    return np.concatenate(features), np.concatenate(classes)


def train_judge(
  pictures: Float[np.ndarray, "N H W"],
  label: Int[np.ndarray, " N"],
  *,
  classes: int,
  epochs: int,
  seed: int = 0,
  tell: Callable[[str], None] = lambda text: None,
) -> Judge:
  """Returns a network of two convolutions and two layers, trained with Adam, shifts and dropout."""
  key = jax.random.key(seed)
  params = _init(key, pictures.shape[1:], classes)
  batch = min(64, len(pictures))
  steps = max(1, epochs * len(pictures) // batch)
  optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

  @jax.jit
  def update(params, state, x, y, key):
    def loss(params):
      _, logits = _classify(params, x, key)
      return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(params, updates), state, value

  state, rng = optimizer.init(params), np.random.default_rng(seed)
  for step in range(steps):
    rows = rng.choice(len(pictures), batch, replace=False)
    x = np.roll(pictures[rows], rng.integers(-2, 3, 2), axis=(1, 2))
    dropped = jax.random.fold_in(key, step)
    params, state, value = update(params, state, x, label[rows], dropped)
    if step % 100 == 0 or step == steps - 1:
      tell(f"judge: step {step + 1} of {steps}, loss {float(value):.3f}")
  return Judge(params)


def frechet(a: Float[np.ndarray, "N C"], b: Float[np.ndarray, "M C"]) -> float:
  """Returns |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of two sets' means and covariances.

  The trace of the root is that of the symmetric (A^(1/2) B A^(1/2))^(1/2). It is biased upwards for
  few rows: compare sets of equal size.
  """
  a, b = a.astype(np.float64), b.astype(np.float64)
  one, other = np.cov(a.T), np.cov(b.T)
  values, vectors = np.linalg.eigh(one)
  root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
  cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
  apart = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one) + np.trace(other) - 2 * cross
  return float(max(apart, 0.0))  # rounding may leave a little below zero


def _init(key: Key[Array, ""], shape: tuple[int, ...], classes: int) -> PyTree:
  height, width = (-(-size // 4) for size in shape)
  sizes = {
    "one": (5, 5, 1, 16),
    "two": (5, 5, 16, 32),
    "three": (height * width * 32, 64),
    "four": (64, classes),
  }
  return {
    name: {
      "kernel": jax.random.normal(jax.random.fold_in(key, place), size)
      * np.sqrt(2 / np.prod(size[:-1])),
      "bias": jnp.zeros(size[-1:]),
    }
    for place, (name, size) in enumerate(sizes.items())
  }


@jax.jit
def _classify(params, pictures, key=None):
  """Returns features [N, 64] and logits; with a key half of the features are dropped."""

  def convolved(x, layer):
    y = jax.lax.conv_general_dilated(
      x, layer["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(y + layer["bias"])

  x = convolved(convolved(pictures[..., None], params["one"]), params["two"])
  x = x.reshape(len(x), -1) @ params["three"]["kernel"] + params["three"]["bias"]
  features = jax.nn.relu(x)
  kept = features
  if key is not None:
    kept = 2 * features * jax.random.bernoulli(key, 0.5, features.shape)
  return features, kept @ params["four"]["kernel"] + params["four"]["bias"]
