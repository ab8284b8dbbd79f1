"""The benchmark of what judging drafts costs."""

import dataclasses

import jax
import pytest

from mtjax.bench.passes import products, verification
from mtjax.bench.targets.verification import CostTarget, cost_targets
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.models.quantize import pack
from mtjax.models.stacking import Stacks
from mtjax.native import support
from mtjax.pretrained import weights_for_decoding

MODEL = Model(
  TransformerConfig(
    vocab_size=64, dim=64, heads=2, kv_heads=1, head_dim=32, mlp_dim=128, layers=uniform_layers(2)
  )
)

needs_native = pytest.mark.skipif(support() is not None, reason=f"no native code: {support()}")


@needs_native
def test_every_number_of_entries_is_compared_with_one_in_every_round():
  said: list[str] = []
  model, params = weights_for_decoding(MODEL, MODEL.init(jax.random.key(0)), "float32")
  points = verification.curve(
    model, params, [1, 3], threads=1, capacity=8, rounds=3, progress=said.append
  )
  assert [point.entries for point in points] == [1, 3] and points[0].cost == 1.0
  assert all(point.seconds > 0 and point.limit > 0 for point in points)
  assert points[1].limit >= points[0].limit >= points[0].read > 0
  assert all(point.products > 0 for point in points)
  assert said == [f"round {number} of 3" for number in (1, 2, 3)]
  (row, _) = verification.rows_of(points, weights="float32")
  assert row["weights"] == "float32" and row["entries"] == 1


def test_the_first_pass_must_be_that_of_one_entry():
  with pytest.raises(ValueError, match="entries must begin with 1"):
    verification.curve(MODEL, {}, [2, 4], threads=1)


@needs_native
@pytest.mark.parametrize("loop", ["unrolled", "scanned"])
def test_the_products_alone_are_those_of_all_weights(loop, monkeypatch):
  given, multiplied = MODEL.init(jax.random.key(0)), []
  config = dataclasses.replace(MODEL.config, layer_loop=loop)
  params = pack(given, Stacks.of(config), narrowest="float32")
  own = products._product

  def counted(node, inputs, outputs, entries, carry):
    multiplied.append((inputs, outputs))
    return own(node, inputs, outputs, entries, carry)

  monkeypatch.setattr(products, "_product", counted)
  products.products_alone(Model(config), params, 3)
  layer = [(64, 128), (64, 64), (64, 256), (128, 64)]
  # A scan is traced once for its two layers.
  layers = 2 * layer if loop == "unrolled" else layer
  assert sorted(multiplied) == sorted([*layers, (64, 64)])


def test_costs_are_held_against_their_ceilings():
  rows = [
    dict(weights="int8", threads=threads, entries=n, seconds=0.01, cost=cost, limit=0.012)
    for threads, n, cost in ((1, 1, 1.0), (1, 8, 1.6), (2, 8, 1.2))
  ]
  (one,) = cost_targets(rows)
  assert one == CostTarget("int8", 8, 1.5, 1.6, pytest.approx(1.2)) and one.verdict == "fail"
  rows[1]["cost"] = 1.5
  assert cost_targets(rows)[0].verdict == "pass"
