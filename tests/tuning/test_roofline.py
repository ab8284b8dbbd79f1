"""The roofline: against figures derived by hand, compiled programs, and a real model's times."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from mtjax import sharding
from mtjax.bench.pods import MODELS, CompiledRound
from mtjax.bench.pods.process import TARGET_LAYER
from mtjax.bench.pods.round import bytes_per_device
from mtjax.cache import allocate, cache_shardings
from mtjax.models import TransformerConfig, uniform_layers
from mtjax.tuning.roofline import (
  HARDWARE,
  MeasuredStep,
  MeshSize,
  ModelShape,
  fit_hardware,
  free_entries,
  get_hardware,
  predict_curve,
  roofline_errors,
  step_cost,
  step_work,
)
from mtjax.tuning.roofline.step import held_bytes
from tests.source import ROOT

LLAMA_8B = ModelShape(4096, 32, 8, 128, 14336, 3, 128256, (None,) * 32)
SMOLLM2 = ModelShape(576, 9, 3, 64, 1536, 3, 49152, (None,) * 30, "float32", 4.0, 4.0)
TINY = TransformerConfig(
  vocab_size=100, dim=16, heads=4, kv_heads=2, head_dim=4, mlp_dim=32, layers=uniform_layers(3)
)


def without_launch(name):
  return dataclasses.replace(HARDWARE[name], start=0.0, start_per_layer=0.0)


def test_the_sizes_of_a_model():
  assert LLAMA_8B.weights == pytest.approx(7.50e9, rel=1e-3)
  assert LLAMA_8B.kv_bytes_per_token == 128 * 1024
  shape = ModelShape.of_config(TINY, weight_bytes=1)
  assert (shape.layers, shape.weight_bytes, shape.kv_bytes, shape.dtype) == (3, 1, 4, "float32")
  windows = dataclasses.replace(LLAMA_8B, windows=(100, None, 2000))
  assert windows.visible(1000) == 100 + 1000 + 1000


@pytest.mark.parametrize(
  ("name", "batch", "context", "devices", "microseconds"),
  [
    ("h200", 1, 2048, 1, 3184), ("h200", 1, 8192, 1, 3351), ("h200", 1, 32768, 1, 4022),
    ("h200", 8, 2048, 1, 3580), ("h200", 8, 8192, 1, 4923), ("v5p", 1, 8192, 1, 5818),
    ("v6e", 8, 8192, 1, 14408), ("v5e", 1, 2048, 1, 18659),
    ("h200", 1, 8192, 4, 2379), ("h200", 1, 8192, 8, 1958), ("v5e", 1, 8192, 8, 3430),
    ("v5p", 1, 8192, 8, 1695), ("v6e", 1, 8192, 4, 3422),
  ],
)  # fmt: skip
def test_the_time_of_a_pass_is_what_bytes_and_operations_say(
  name, batch, context, devices, microseconds
):
  mesh = MeshSize(model=devices)
  cost = step_cost(
    without_launch(name), LLAMA_8B, batch=batch, entries=1, context=context, mesh=mesh
  )
  assert cost.seconds * 1e6 == pytest.approx(microseconds, rel=1e-3)


def test_collectives_make_entries_cost_from_the_first_one():
  h200, v5e = without_launch("h200"), without_launch("v5e")
  sizes = dict(batch=1, context=8192)
  one, eight = (free_entries(h200, LLAMA_8B, mesh=MeshSize(model=n), **sizes) for n in (1, 8))
  assert 100 < one < 110 and 55 < eight < 60  # where 10 % of its longer pass are over
  mesh = MeshSize(model=8)
  few, many = (step_cost(v5e, LLAMA_8B, entries=n, mesh=mesh, **sizes) for n in (1, 64))
  assert few.collective * 1e6 == pytest.approx(975, abs=1)
  assert many.work.collective_bytes == 64 * few.work.collective_bytes
  reduced, permuted = 2 * 32 * 2 * 7 / 8 * 4096 * 2, 32 * 5 * 14336 / 8 * 2
  assert few.work.collective_bytes == pytest.approx(reduced + permuted)
  two = step_work(LLAMA_8B, batch=1, entries=1, context=8192, mesh=MeshSize(model=2))
  assert two.collectives == 4 * 32
  assert two.collective_bytes == pytest.approx(32 * (2 * 4096 * 2 + 2 * 14336 / 2 * 2))
  # Without a gate there is nothing to change places.
  plain = dataclasses.replace(LLAMA_8B, mlp_matrices=2)
  work = step_work(plain, batch=1, entries=1, context=8192, mesh=mesh)
  assert (work.collectives, work.collective_bytes) == (2 * 32, pytest.approx(reduced))


def test_a_layer_exchanges_what_it_does_in_compiled_rounds():
  for row in json.loads((ROOT / "results" / "pods.json").read_text())["rows"]:
    one = CompiledRound.of_row(row)
    layer = [each for each in one.collectives if each.scope == TARGET_LAYER]
    # CPU devices, in the place of others, compute in float32.
    is_wide = all(each.shape.startswith("f32") for each in layer)
    shape = ModelShape.of_config(MODELS[one.case.model][0])
    shape = dataclasses.replace(shape, dtype="float32" if is_wide else "bfloat16")
    mesh = MeshSize(one.pod.data, one.pod.model)
    work = step_work(
      shape, batch=one.case.batch, entries=one.case.entries, context=one.case.context, mesh=mesh
    )
    sent = {"all-reduce": 2 * (mesh.model - 1) / mesh.model, "collective-permute": 1}
    assert work.collectives == shape.layers * sum(each.times for each in layer), str(one.case)
    total = sum(each.times * each.bytes * sent[each.kind] for each in layer)
    assert work.collective_bytes == pytest.approx(shape.layers * total), str(one.case)


def test_axes_of_a_mesh_divide_what_they_should():
  alone = step_cost(HARDWARE["h200"], LLAMA_8B, batch=8, entries=4, context=4096)
  rows = step_cost(
    HARDWARE["h200"], LLAMA_8B, batch=8, entries=4, context=4096, mesh=MeshSize(data=4)
  )
  assert (
    rows.work.weight_bytes == alone.work.weight_bytes
    and rows.work.cache_bytes == alone.work.cache_bytes / 4
  )
  sequence = step_cost(
    HARDWARE["h200"], LLAMA_8B, batch=8, entries=4, context=4096, mesh=MeshSize(sequence=4)
  )
  assert sequence.work.cache_bytes == alone.work.cache_bytes / 4 and sequence.collective > 0
  heads = step_cost(
    HARDWARE["h200"], LLAMA_8B, batch=8, entries=4, context=4096, mesh=MeshSize(model=16)
  )
  # 8 key/value heads, each on two devices: one is copied out of all, and read again.
  assert heads.work.cache_bytes == 3 * alone.work.cache_bytes / 8
  assert heads.work.attention_flops == alone.work.attention_flops / 16
  assert heads.work.weight_bytes == alone.work.weight_bytes / 16
  # 3 devices divide 24 heads, and not 8 key/value heads: each of them computes all of attention.
  odd = dataclasses.replace(LLAMA_8B, heads=24)
  sizes = dict(batch=8, entries=4, context=4096)
  whole, parts = (step_work(odd, mesh=MeshSize(model=n), **sizes) for n in (1, 3))
  assert (parts.cache_bytes, parts.attention_flops) == (whole.cache_bytes, whole.attention_flops)


@pytest.mark.parametrize("sizes", [(1, 2, 1), (1, 4, 1), (2, 8, 1), (1, 3, 1), (2, 2, 2)])
def test_a_device_holds_as_much_of_a_cache_as_decoding_gives_it(sizes):
  """4 key/value heads of 16 or 24 heads: 2 and 4 devices divide them, 8 and 3 do not."""
  shape = dataclasses.replace(SMOLLM2, heads=24 if sizes[1] == 3 else 16, kv_heads=4)
  mesh = AbstractMesh(sizes, sharding.AXES, axis_types=(AxisType.Auto,) * len(sizes))
  cache = jax.eval_shape(
    functools.partial(
      allocate, batch=4, capacity=64, heads=[shape.kv_heads] * shape.layers, head_dim=shape.head_dim
    )
  )
  placed = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    cache,
    cache_shardings(cache, mesh),
  )
  tokens, size = cache.position.shape[1], MeshSize(*sizes)
  weights = held_bytes(shape, batch=4, tokens=0, mesh=size)
  held = held_bytes(shape, batch=4, tokens=tokens, mesh=size) - weights
  assert bytes_per_device(placed.layers) == pytest.approx(held)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="16.1 GB per device, v5e has 16 GB: use more devices"):
    step_cost(HARDWARE["v5e"], LLAMA_8B, batch=1, entries=1, context=8192)
  with pytest.raises(ValueError, match="9 heads do not divide among 2 devices"):
    step_cost(HARDWARE["cpu"], SMOLLM2, batch=1, entries=1, context=8, mesh=MeshSize(model=2))
  with pytest.raises(ValueError, match="no speed for 'float4': known are bfloat16"):
    HARDWARE["v5e"].flops_of("float4")
  with pytest.raises(ValueError, match="one of h100, h200, v5e, v5p, v6e, cpu"):
    get_hardware("tpu")
  with pytest.raises(ValueError, match="at least one device"):
    MeshSize(model=0)


def test_a_predicted_curve_is_free_at_first_and_then_a_line():
  small = dataclasses.replace(LLAMA_8B, windows=(None,) * 2, vocab=32000)
  curve = predict_curve(HARDWARE["h200"], LLAMA_8B, small, batch=4, context=1024)
  assert curve.plain < curve.round_seconds(1, 0) < curve.round_seconds(1, 1)
  assert (
    curve.verify(8) < 1.02 * curve.verify(1) and curve.verify(256) > 2 * curve.verify(128) * 0.8
  )
  assert curve.draft(3) == pytest.approx(3 * curve.draft(1)) and curve.draft(1) < 0.2 * curve.plain
  heads = predict_curve(HARDWARE["h200"], LLAMA_8B, 1e-4, batch=4, context=1024)
  assert heads.draft(5) == pytest.approx(5e-4) and heads.verify == curve.verify
  with pytest.raises(ValueError, match="more than 0 seconds"):
    predict_curve(HARDWARE["h200"], LLAMA_8B, 0.0, batch=1, context=1)


def synthetic(truth, noise, rng):
  """Returns points of a device that is `truth`, on one device and on four."""
  points = []
  for devices in (1, 4):
    for batch, entries, context in [
      (1, 1, 512), (1, 8, 512), (1, 64, 512), (1, 256, 512), (8, 1, 4096), (8, 16, 4096),
      (32, 1, 2048), (32, 32, 2048), (64, 4, 512),
    ]:  # fmt: skip
      size = dict(batch=batch, entries=entries, context=context, mesh=MeshSize(model=devices))
      seconds = step_cost(truth, LLAMA_8B, **size).seconds * np.exp(noise * rng.normal())
      points.append(MeasuredStep(LLAMA_8B, seconds=seconds, **size))
  return points


def test_the_parameters_of_a_device_are_found_again():
  sheet = HARDWARE["h200"]
  truth = dataclasses.replace(
    sheet, flops={name: 0.75 * x for name, x in sheet.flops.items()}, bandwidth=4.1e12,
    start=60e-6, start_per_layer=15e-6, link=300e9, link_start=12e-6,
  )  # fmt: skip
  rng = np.random.default_rng(0)
  fit = fit_hardware(sheet, synthetic(truth, 0.0, rng))
  assert fit.worst < 1e-3 and set(fit.determined) >= {"flops", "bandwidth", "start", "link"}
  for name in ("bandwidth", "start", "link", "link_start"):
    assert getattr(fit.hardware, name) == pytest.approx(getattr(truth, name), rel=0.02)
  assert fit.hardware.flops["int8"] == pytest.approx(truth.flops["int8"], rel=0.01)
  noisy = fit_hardware(sheet, synthetic(truth, 0.05, rng))
  assert noisy.median < 0.06
  held_out = synthetic(truth, 0.0, rng)  # the error where both exist: small, and that of the sheet
  assert np.abs(roofline_errors(noisy.hardware, held_out)).max() < 0.1
  assert np.abs(roofline_errors(sheet, held_out)).max() > 0.2


def test_what_points_do_not_tell_stays_as_it_was():
  sheet = HARDWARE["h200"]
  points = [point for point in synthetic(sheet, 0.0, np.random.default_rng(0))
            if point.mesh.model == 1]  # fmt: skip
  fit = fit_hardware(sheet, points)
  assert "link" not in fit.determined and fit.hardware.link == sheet.link
  with pytest.raises(ValueError, match="needs measured points"):
    fit_hardware(sheet, [])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("weights", "size"), [("float32", 4.0), ("bfloat16", 2.0), ("int8", 1.0)])
def test_measured_times_of_a_real_model_are_explained(weights, size, threads):
  """SmolLM2 on two cores, as measured: the fitted roofline is near every point but the first.

  One entry alone runs with other kernels than several do.
  """
  rows = json.loads((ROOT / "results" / "verification.json").read_text())["rows"]
  shape = dataclasses.replace(SMOLLM2, dtype=weights, weight_bytes=size)
  points = [
    MeasuredStep(shape, 1, row["entries"], 128, row["seconds"])
    for row in rows
    if (row["weights"], row["threads"]) == (weights, threads)
  ]
  fit = fit_hardware(HARDWARE["cpu"], points)
  assert len(points) == 9 and fit.median < 0.04 and np.abs(fit.errors[1:]).max() < 0.12
  assert 15e9 < fit.hardware.bandwidth < 45e9 and {"flops", "bandwidth"} <= set(fit.determined)
