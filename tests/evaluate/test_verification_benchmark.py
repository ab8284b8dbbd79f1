"""The benchmark of what judging drafts costs."""

import jax
import pytest

from mtjax.bench import verification
from mtjax.models import Model, TransformerConfig, uniform_layers
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
  assert points[1].limit >= points[0].limit
  assert said == [f"round {number} of 3" for number in (1, 2, 3)]
  (row, _) = verification.rows_of(points, weights="float32")
  assert row["weights"] == "float32" and row["entries"] == 1


def test_the_first_pass_must_be_that_of_one_entry():
  with pytest.raises(ValueError, match="entries must begin with 1"):
    verification.curve(MODEL, {}, [2, 4], threads=1)
