"""The benchmark of attention: systems compute the same, tables say what was measured."""

import jax
import numpy as np
import pytest

from mtjax.bench.attention.kernels import (
  MASKS,
  SYSTEMS,
  AttentionShape,
  Timing,
  arrays,
  block_share,
  compare,
  frontier_of,
  visible_share,
)
from mtjax.report.kernel_tables import figure, tables
from mtjax.report.mask_pictures import blocks_picture

SMALL = dict(heads=4, kv_heads=2, width=8, batch=2)


@pytest.mark.parametrize(
  "shape",
  [
    AttentionShape("tree", 6, capacity=16, filled=9, **SMALL),
    AttentionShape("two streams", 12, **SMALL),
  ],
  ids=["decoding", "training"],
)
def test_systems_compute_the_same(shape):
  inputs = arrays(shape)
  expected, *others = (jax.jit(system)(inputs) for system in SYSTEMS.values())
  # jax.nn defines no output for an entry that sees nothing, such as the first query here.
  seen = np.asarray(jax.numpy.any(expected != 0, axis=(2, 3)))
  assert seen.mean() > 0.9
  for other in others:
    np.testing.assert_allclose(other[seen], expected[seen], atol=2e-6)


def test_shares_are_those_of_the_masks():
  assert visible_share(AttentionShape("causal", 128)) == pytest.approx(129 / 256)
  assert block_share(AttentionShape("causal", 512)) == pytest.approx(10 / 16)
  assert block_share(AttentionShape("any order", 512)) == pytest.approx(10 / 16), "sorted first"
  assert block_share(AttentionShape("blocks of 64", 512)) == pytest.approx(4 / 16)


def test_a_comparison_has_a_row_for_each_shape():
  shape = AttentionShape("tree", 2, capacity=4, filled=2, **SMALL)
  timings = compare(shape, ["xla", "dense mask"], rounds=1)
  assert [t.system for t in timings] == ["xla", "dense mask"] and all(
    t.seconds > 0 for t in timings
  )
  trained = AttentionShape("causal", 128, gradient=True)
  rows = [
    Timing(shape, "xla", 2e-6, 2048), Timing(shape, "dense mask", 5e-6, None),
    Timing(trained, "xla", 2e-3, 1 << 20), Timing(trained, "dense mask", 3e-3, 1 << 21),
  ]  # fmt: skip
  decoding, training = tables(rows)
  assert decoding.rows == [("2", "4", "2", "2.00 (2)", "5.00 (-)", "2.50x")]
  assert training.rows == [
    ("causal", "128", "50%", "100%", "2.00 (1,024)", "3.00 (2,048)", "1.50x")
  ]
  picture = figure(rows)
  assert [len(axis.lines) for axis in picture.axes] == [2, 2]


def test_a_picture_shows_what_is_skipped():
  picture = blocks_picture(
    {name: frontier_of(AttentionShape(name, 16)) for name in ("causal", "any order")}, 4
  )
  titles = [axis.get_title() for axis in picture.axes]
  assert titles == [
    "causal: 38% skipped", titles[1], "in order: 38% skipped", "in order: 38% skipped"
  ]  # fmt: skip
  assert titles[1].startswith("any order: ")


def test_shapes_that_make_no_sense_are_refused():
  with pytest.raises(ValueError, match="unknown mask 'star'; there are: tree, causal"):
    AttentionShape("star", 4)
  with pytest.raises(ValueError, match="filled must be 0 to 8, the capacity: got 9"):
    AttentionShape("tree", 4, capacity=8, filled=9)
  with pytest.raises(ValueError, match="gradients need capacity 0"):
    AttentionShape("tree", 4, capacity=8, filled=8, gradient=True)
  assert set(MASKS) >= {"tree", "causal", "block diffusion"}
