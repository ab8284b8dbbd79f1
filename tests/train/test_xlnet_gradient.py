"""One step of an XLNet against transformers: the loss and the gradient of every parameter."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.anysubset.masking import Masking
from mtjax.train.losses import any_subset as loss_lib
from mtjax.train.losses.any_subset import any_subset_loss

VOCAB, SIZE = 20, 10
DOCUMENT = np.array([[1, 1, 1, 1, 1, 1, 2, 2, 2, 2], [1] * 9 + [0]])  # the last is padding
POSITION = np.array([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3], [*range(9), 0]])
TOLERANCE = 2e-5  # of the largest entry of a gradient; measured: 1e-6

pytestmark = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
  """(transformers' model of random weights, the folder it is saved in)."""
  import torch
  import transformers

  torch.manual_seed(0)
  config = transformers.XLNetConfig(
    vocab_size=VOCAB, d_model=16, n_layer=2, n_head=2, d_inner=24, dropout=0.0,
    initializer_range=0.3, mem_len=None, reuse_len=None,
  )  # fmt: skip
  model = transformers.XLNetLMHeadModel(config).eval()
  folder = tmp_path_factory.mktemp("xlnet")
  model.save_pretrained(folder)
  return model, folder


@pytest.fixture(scope="module")
def chosen(oracle):
  """A batch with what is asked of it, in which every document has a given token.

  Where none is given, transformers lets a query see everything.
  """
  tokens = np.random.default_rng(0).integers(0, VOCAB, DOCUMENT.shape)
  batch = dict(tokens=tokens, segment=DOCUMENT, position=POSITION)
  masking = Masking(start=(0.5, 0.7), end=(0.5, 0.7))
  loss = any_subset_loss(checkpoints.load(oracle[1])[0], masking)
  prepared = loss.prepare(batch, jax.random.key(0), jnp.asarray(0))
  is_target = np.asarray(prepared["is_target"])
  for row, number in ((0, 1), (0, 2), (1, 1)):
    text = (DOCUMENT[row] == number) & (POSITION[row] > 0)
    assert is_target[row, text].any() and not is_target[row, text].all()
  return loss, prepared


def theirs(model, is_target, tokens):
  """The sum of the asked tokens' nats, by one mask over documents and ranks, to differentiate."""
  import torch

  text = POSITION > 0
  rank = np.cumsum(is_target, axis=1) * is_target
  banned = rank[:, :, None] <= rank[:, None]
  banned &= (rank[:, :, None] > 0) | (rank[:, None] > 0)  # given ones see each other
  banned |= DOCUMENT[:, :, None] != DOCUMENT[:, None]
  banned |= ~text[:, None]
  total = 0
  for row in range(len(tokens)):
    (places,) = np.nonzero(is_target[row])
    target = torch.zeros(1, len(places), SIZE)
    target[0, torch.arange(len(places)), torch.tensor(places)] = 1
    logits = model(
      torch.tensor(tokens[row][None]),
      perm_mask=torch.tensor(banned[row][None], dtype=torch.float32),
      target_mapping=target,
    ).logits[0]
    own = torch.tensor(tokens[row][places])
    total = total + torch.nn.functional.cross_entropy(logits, own, reduction="sum")
  return total


def of_ours(oracle, chosen):
  (loss, prepared), (model, params) = chosen, checkpoints.load(oracle[1])
  del model
  return jax.jit(jax.value_and_grad(lambda p: loss.total(p, prepared).sum))(params)


def of_theirs(oracle, chosen, folder):
  """Their gradient as parameters of ours: saved in place of the weights, and read as they are."""
  import copy

  import torch

  model, prepared = copy.deepcopy(oracle[0]), chosen[1]
  nats = theirs(model, np.asarray(prepared["is_target"]), np.asarray(prepared["tokens"]))
  nats.backward()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
  model.save_pretrained(folder)
  return nats.item(), checkpoints.load(folder)[1]


def worst(found, expected) -> dict[str, float]:
  """Of each parameter, the largest difference, as a part of its largest entry."""
  flat = jax.tree_util.tree_leaves_with_path(expected)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): float(
      np.abs(np.asarray(a) - np.asarray(b)).max() / max(np.abs(np.asarray(b)).max(), 1e-3)
    )
    for a, (path, b) in zip(jax.tree.leaves(found), flat, strict=True)
  }


def test_loss_and_gradient_are_those_of_transformers(oracle, chosen, tmp_path):
  nats, gradient = of_ours(oracle, chosen)
  expected, their_gradient = of_theirs(oracle, chosen, tmp_path)
  assert float(nats) == pytest.approx(expected, rel=1e-5)
  differences = worst(gradient, their_gradient)
  assert max(differences.values()) < TOLERANCE, differences
  # One text has no other segment to attend to.
  flat = jax.tree_util.tree_leaves_with_path(gradient)
  still = {str(path[-1].key) for path, x in flat if not np.abs(x).max() > 0}
  assert still == {"segment_bias", "segments"}


def test_queries_that_see_other_documents_are_seen(oracle, chosen, tmp_path, monkeypatch):
  true = loss_lib.asking
  monkeypatch.setattr(loss_lib, "asking", lambda config, canvas, rank, query, document: (
    true(config, canvas, rank, query)))  # fmt: skip
  _, gradient = of_ours(oracle, chosen)
  _, expected = of_theirs(oracle, chosen, tmp_path)
  assert max(worst(gradient, expected).values()) > 100 * TOLERANCE
