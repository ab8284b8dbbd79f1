"""Scripted logits: a cache policy reads them from a table, pass by pass, in place of a model."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.types import Exactness
from tests.diffusion.tiny_masked import MASK, MODEL, V

NETWORK = MaskedNetwork(MODEL, MASK)  # only its sizes are read


@dataclasses.dataclass(frozen=True)
class Scripted:
  """Pass n of a row has the logits params["real"][n], and its shadow entries params["shadow"][n].

  After the last pass of the table the last one is repeated.
  """

  exactness = Exactness.LOSSLESS
  reason = ""
  needs_final = False
  reads_layers = False

  def check(self, network):
    pass

  def start(self, network, params, job):
    return jnp.zeros(job.prompt.shape[0], jnp.int32)

  def logits(self, network, params, job, number, now):
    return _row_of(params["real"], number), number + now.active

  def logits_with_shadow(self, network, params, job, number, now):
    return (
      _row_of(params["real"], number),
      _row_of(params["shadow"], number),
      number + now.active,
    )


def _row_of(table, number):
  return table[jnp.minimum(number, table.shape[0] - 1)]


def script(*passes):
  """Returns logits [P, W, V]: a pass is a list of (token, probability), one per position."""
  return jnp.asarray(np.stack([[distribution(*one) for one in each] for each in passes]))


def distribution(token, probability):
  """Returns logits where `token` has this probability, and others but the mask share the rest."""
  p = np.full(V, (1 - probability) / (V - 2))
  p[token], p[MASK] = probability, 1e-30
  logits = np.log(np.maximum(p, 1e-30)).astype(np.float32)
  logits[MASK] = -np.inf
  return logits
