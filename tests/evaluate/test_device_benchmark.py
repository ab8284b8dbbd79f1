"""The benchmark of a device, tested without one: errors are noticed, and limits are arithmetic."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas.frontier_attention import frontier_attention
from mtjax.bench.attention import (
  device as device_benchmark,
)
from mtjax.bench.attention import (
  flex as flex_peer,
)
from mtjax.bench.attention import float64
from mtjax.bench.attention import (
  inputs as kernel_inputs,
)
from mtjax.bench.attention.clock import DoesNotFit, check_fits, seconds_per_call
from mtjax.bench.attention.correctness import cases, check, check_implementations, inputs
from mtjax.bench.attention.kernels import AttentionShape
from mtjax.bench.attention.limits import DeviceLimits, knee, need
from mtjax.bench.attention.sweep import SweepPoint, sets_of
from mtjax.bench.latency_model import fitted
from mtjax.report import device_pictures, device_tables
from tests.kernels import oracle

CASES = {case.name: case for case in cases(4, 2, 16, 8, "float32")}
LIMITS = DeviceLimits("a device", "cpu", None, copy_rate=1e12, matmul_rate=1e14)
LONG = AttentionShape(
  "causal", 16, 8192, 8192, 2, heads=32, kv_heads=8, width=128, dtype="bfloat16"
)


@pytest.mark.parametrize("name", [name for name in CASES if "gradient" not in name])
def test_float64_is_the_oracle_of_the_tests(name):
  given = inputs(CASES[name])
  for found, expected in zip(float64.attend(given), oracle.attention(**given), strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gradients_in_float64_are_differences():
  given = inputs(CASES["two streams, gradient"])
  rng = np.random.default_rng(0)
  cotangent = rng.standard_normal(given["q"].shape)
  found = float64.gradients(given, cotangent)
  for name, gradient in zip("qkv", found, strict=True):
    step = 1e-6 * rng.standard_normal(gradient.shape)
    there, back = (
      (
        float64.attend(given | {name: np.asarray(given[name], np.float64) + sign * step})[0]
        * cotangent
      )
      for sign in (1, -1)
    )
    assert (there - back).sum() / 2 == pytest.approx((gradient * step).sum(), rel=1e-6)


def test_what_is_wrong_fails():
  cases = [CASES["pages in a window"], CASES["two streams, gradient"]]

  def no_window(*arguments, window=None, **options):
    return frontier_attention(*arguments, **options)

  def another_length(*arguments, lengths, **options):
    shorter = None if lengths is None else jnp.maximum(lengths - 1, 0)
    return frontier_attention(*arguments, lengths=shorter, **options)

  def half_a_gradient(q, k, v, **options):
    v = (v + jax.lax.stop_gradient(v)) / 2
    return frontier_attention(q, k=k, v=v, **options)

  def raises(*arguments, **options):
    raise RuntimeError("no such instruction")

  def failed(attention):
    return [
      verdict.case for verdict in check(cases, ["xla"], attention=attention) if verdict.failed
    ]

  assert failed(frontier_attention) == []
  assert failed(no_window) == failed(another_length) == ["pages in a window"]
  assert failed(half_a_gradient) == ["two streams, gradient"]
  (verdict,) = check(cases[:1], ["xla"], attention=raises)
  assert verdict.failed and verdict.why == "raised RuntimeError: no such instruction"
  assert device_benchmark.DeviceReport(verdicts=(verdict,)).failed == [verdict]
  table = device_tables.correctness_table([verdict])
  assert table.rows == [("pages in a window", f"FAILED: {verdict.why}")]


def test_what_an_implementation_cannot_do_is_said_and_no_failure():
  (verdict,) = check([CASES["float32"]], ["gpu"])
  assert not verdict.failed and verdict.why.startswith("computes in float16 or bfloat16")


def test_the_roofline_is_arithmetic():
  """2 rows, 8 key heads of 128 in 2 bytes; 16 entries of 32 heads that see 8,192 slots."""
  found = need(LONG)
  keys_and_values = 2 * (8192 + 16) * 8 * 128 * 2
  queries_and_outputs = 2 * 16 * 32 * 128 * 2
  assert found.bytes == 2 * (keys_and_values + queries_and_outputs) == 67_764_224
  pairs = 16 * 8192 + 16 * 17 // 2
  assert found.flops == 2 * 32 * pairs * 2 * 2 * 128
  assert found.seconds(LIMITS) == pytest.approx(67.764224e-6), "bytes, not 43 us of FLOPs"
  more_flops = dataclasses.replace(LIMITS, copy_rate=1e13)
  assert found.seconds(more_flops) == pytest.approx(found.flops / 1e14)
  assert knee(LONG, LIMITS) == pytest.approx(100 / 4), "a ridge of 100, 4 query heads a key head"
  point = SweepPoint(LONG, "xla", 2 * 67.764224e-6, found, LIMITS)
  assert point.bandwidth_share == pytest.approx(0.5)
  trained = dataclasses.replace(LONG, capacity=0, filled=0)
  forward, both = need(trained), need(dataclasses.replace(trained, gradient=True))
  assert (both.bytes, both.flops) == (3 * forward.bytes, 3.5 * forward.flops)


def test_a_knee_is_found_where_it_was_put():
  entries = [1, 2, 4, 8, 16, 32, 64, 128, 256]
  true = np.maximum(18e-6, 6e-6 + 0.2e-6 * np.asarray(entries))
  assert fitted(entries, true).knee == pytest.approx(60)
  noisy = fitted(entries, true * (1 + 0.03 * np.random.default_rng(0).standard_normal(9)))
  assert noisy.knee == pytest.approx(60, rel=0.2) and noisy.worst < 0.08
  assert fitted(entries, [1e-5] * 9).knee == np.inf
  assert fitted(entries, 1e-6 * np.asarray(entries)).knee == pytest.approx(1)
  with pytest.raises(ValueError, match="three or more"):
    fitted([1, 2], [1.0, 2.0])


def test_calls_are_made_one_after_the_other_with_each_set_of_arrays():
  assert seconds_per_call(lambda x, y, _: x @ y, jnp.eye(4), [jnp.eye(4)] * 3, rounds=1) > 0
  shape = AttentionShape("tree", 2, 64, 64, 1, 4, 2, 16)
  each = 2 * 2 * 64 * 16 * 4
  sets, shared = sets_of(shape, 16, 3 * each - 1)
  assert len(sets) == 3 and "page_table" in shared and "page_table" not in sets[1]
  assert not np.array_equal(sets[0]["cache_k"], sets[1]["cache_k"])
  with pytest.raises(DoesNotFit, match="needs 3.0 GiB of 2.0"):
    check_fits(3 << 30, 2 << 30)


def test_all_parts_run_at_toy_sizes():
  plan = device_benchmark.toy(
    parts=("bandwidth", "entries", "comparison"), rows=(1,), slots=(64,), entries=(4,),
    one_layer=(1, 4, 8), masks=("two streams",), lengths=(16,), rounds=1,
  )  # fmt: skip
  *_, (part, report, ended) = device_benchmark.benchmark(plan)
  assert part == "comparison" and ended and len(report.sweep) == 2 and len(report.entries) == 3
  assert all(point.seconds > 0 for point in (*report.sweep, *report.entries))
  ran = [point for point in report.comparison if point.seconds is not None]
  assert {point.system for point in ran} == {"reference", "xla", "jax.nn xla"}
  assert max(point.difference for point in ran) < 2e-6, "a peer was given another mask"
  refused = {point.system: point.why for point in report.comparison if point.seconds is None}
  assert refused["FlexAttention"].startswith("torch") and refused["jax.nn cudnn"]
  figures = json.loads(json.dumps(report.figures(), allow_nan=False))
  assert figures["latency"].keys() == {"flat", "start", "each", "worst", "knee"}
  for name in ("limits", "correctness", "bandwidth", "entries", "comparison"):
    assert device_tables.pieces(name, report, plan.swept)
  picture = device_pictures.figure(report.sweep, report.entries, report.latency)
  assert [axis.get_xlabel() for axis in picture.axes] == ["filled slots", "fresh entries T"]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["a large tree in pages", "two streams"])
def test_flex_attention_is_given_the_same_mask(name):
  pytest.importorskip("torch", reason="torch is for comparisons: CONTRIBUTING.md, Parity")
  shape = CASES[name].shape
  given = kernel_inputs.with_cache(shape, None)
  tensors = flex_peer.tensors(given, "cpu")
  found = flex_peer.attend(tensors, flex_peer.block_mask(tensors)).numpy()
  expected, lse = float64.attend(given)
  some = np.isfinite(lse)
  np.testing.assert_allclose(found[some], expected[some], atol=2e-5)


def test_plans_that_make_no_sense_are_refused():
  for wrong, message in (
    (dict(parts=("speed",)), "unknown part 'speed'; there are: correctness"),
    (dict(implementation="triton"), "unknown implementation 'triton'; there are: reference"),
    (dict(implementation="tpu"), "'tpu' does not run on cpu; these do: reference, xla"),
    (dict(implementation="tpu_interpret"), "the time of an interpreter says nothing"),
    (dict(page=48), "a cache of 64 slots has no whole number of pages of 48"),
    (dict(entries=(0,)), "entries must be numbers of at least 1"),
    (dict(dtype="int4"), "dtype 'int4' is not one of: float32"),
  ):
    with pytest.raises(ValueError, match=message):
      device_benchmark.toy(**wrong)
  with pytest.raises(ValueError, match="no accelerator here; --sizes=toy runs anywhere"):
    device_benchmark.full()
  check_implementations(["gpu_interpret"])
