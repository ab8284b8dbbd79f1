"""The benchmark of latency: its models, its one roofline, its trees, and what does not fit."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.bench.attention.clock import DoesNotFit
from mtjax.bench.planning import latency as bench
from mtjax.bench.planning import profiled
from mtjax.bench.planning.latency import LatencyCell, LatencyFindings, LatencySettings
from mtjax.bench.planning.profiled import ProfiledModel, draft_of, load_profiled, random_model
from mtjax.models import count_parameters
from mtjax.models.stacking import scannable
from mtjax.report.plans.latency import latency_notes, latency_tables
from mtjax.text import TextModel
from mtjax.tuning.profiles import LatencyProfile, fit_curve
from mtjax.tuning.roofline import (
  HARDWARE,
  MeshSize,
  ModelShape,
  nearest_hardware,
  predict_curve,
  published_shape,
)
from tests.draft.drafters import LETTERS, PARAMS, TARGET

RATES = np.tile([0.7, 0.12, 0.05, 0.02], (8, 1))
TRUTH = dataclasses.replace(HARDWARE["h200"], bandwidth=3e12, start=50e-6, start_per_layer=12e-6)
TARGET_8B, DRAFT_1B = published_shape("8B"), published_shape("1B")
SIZES = (1, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def cell(model="8B", batch=1, *, shape=TARGET_8B, draft=DRAFT_1B, noise=0.0):
  """A cell whose passes take what the roofline of TRUTH says, the largest one more or less."""
  exact = predict_curve(TRUTH, shape, draft or 1e-6, batch=batch, context=256, max_steps=7)
  verify = [(n, float(exact.verify(n)) * (1 + noise * (n == 256))) for n in SIZES]
  steps = [(d, float(exact.draft(d))) for d in (1, 3, 7)]
  rounds = [(d + 1, d, exact.fixed + float(exact.verify(d + 1)) + s) for d, s in steps]
  curve = fit_curve(
    batch, 256, verify=verify, draft=steps, rounds=rounds, checks=[(6, 5, rounds[2][2])],
    plain=exact.plain,
  )  # fmt: skip
  return LatencyCell(model, "1B" if draft else "lookup", shape, draft, MeshSize(), curve)


@pytest.mark.parametrize(
  ("platform", "kind", "name"),
  [
    ("cpu", "cpu", "cpu"), ("gpu", "NVIDIA H200", "h200"), ("gpu", "NVIDIA H100 80GB HBM3", "h100"),
    ("gpu", "NVIDIA A100-SXM4-40GB", "h100"), ("tpu", "TPU v5 lite", "v5e"),
    ("tpu", "TPU v5p", "v5p"), ("tpu", "TPU v5", "v5p"), ("tpu", "TPU v6 lite", "v6e"),
    ("tpu", "TPU v4", "v5e"),
  ],
)  # fmt: skip
def test_the_fit_begins_with_the_nearest_device(platform, kind, name):
  assert nearest_hardware(platform, kind).name == name


@pytest.mark.parametrize(
  ("target", "name"),
  [("135M", "2 layers"), ("1B", "135M"), ("3B", "0.5B"), ("8B", "1B"), ("70B", "8B")],
)
def test_a_shape_drafts_with_a_smaller_one_of_its_vocabulary(target, name):
  shape = published_shape(target, dtype="float32")
  found, draft = draft_of(shape)
  assert found == name and draft.vocab == shape.vocab
  assert (draft.dtype, draft.weight_bytes, draft.kv_bytes) == ("float32", 4.0, 4.0)
  assert draft.weights < shape.weights / 3


@pytest.mark.parametrize("layers", profiled.LAYERS)
def test_random_weights_have_the_shape_and_type_that_was_asked_for(layers):
  shape = ModelShape(16, 4, 2, 8, 32, 3, 64, (None, 4) * 2)
  text = random_model("small", shape, layers=layers)
  config = text.model.config
  assert config.layer_loop == ("scanned" if layers == "stacked" else "unrolled")
  assert scannable(config) and ModelShape.of_config(config) == shape
  assert {leaf.dtype for leaf in jax.tree.leaves(text.params)} == {jnp.dtype("bfloat16")}
  # All but the norms, of which each layer has two and the model one.
  assert count_parameters(text.params) == shape.weights + 9 * 16
  for path, leaf in jax.tree_util.tree_leaves_with_path(text.params):
    spread = float(jnp.std(leaf.astype(jnp.float32)))
    assert spread == 0 if path[-1].key == "weight" else 0.01 < spread < 0.03


def test_a_shape_that_is_larger_than_the_memory_is_refused_before_it_is_made(monkeypatch):
  monkeypatch.setattr(profiled, "random_model", None)
  monkeypatch.setattr(profiled, "device_memory", lambda: 16 << 30)
  with pytest.raises(DoesNotFit, match=r"needs .* GiB of 16\.0"):
    load_profiled("405B", None, dtype=None, mesh=None, layers="unrolled")


def test_one_roofline_explains_all_cells_and_chooses_the_trees_of_the_measured_times():
  small = cell("1B", 16, shape=DRAFT_1B, draft=published_shape("135M"))
  found = LatencyFindings(HARDWARE["h200"], RATES, (cell(), cell(batch=16), small))
  fit = found.fit
  assert len(fit.errors) == 3 * len(SIZES) and fit.worst < 1e-3
  assert fit.hardware.bandwidth == pytest.approx(3e12, rel=0.01)
  # The data sheet is faster than this device.
  assert found.sheet_errors.max() < 0 and np.median(found.sheet_errors) < -0.3
  for one in found.cells:
    plans = found.plans(one)
    assert plans.measured.choice.drafter == plans.predicted.choice.drafter == "1B"
    # Between measured sizes the curve is a line, so that the trees may differ a little.
    assert plans.tried_speedup == pytest.approx(plans.measured.speedup, rel=0.05)
    assert plans.tried_speedup <= plans.measured.speedup + 1e-9 and plans.measured.speedup > 1.2
  parts, trees, roofline, first, *_ = latency_tables(found)
  assert [row[0] for row in parts.rows] == [one.title for one in found.cells]
  assert parts.rows[0][0] == "8B with 1B, batch 1, context 256" == trees.rows[0][0]
  known = {row[0]: row for row in roofline.rows}
  assert known["memory, GB/s"][1:] == ("4800", f"{fit.hardware.bandwidth / 1e9:.4g}", "yes")
  assert known["links, GB/s"][1] == known["links, GB/s"][2] and known["links, GB/s"][3] == "no"
  assert [row[0] for row in first.rows] == [str(size) for size in SIZES]
  (row, *_) = json.loads(json.dumps(found.rows()))
  assert row["entries"] == list(SIZES) and row["plan"]["drafts"] == int(trees.rows[0][1])
  assert row["roofline_seconds"] == pytest.approx(row["seconds"], rel=1e-2)


def test_errors_are_said_as_they_are():
  found = LatencyFindings(HARDWARE["h200"], RATES, (cell(noise=-0.9),), ("70B does not fit",))
  (one,) = found.cells
  roofline, monotone, rounds, rates, left = latency_notes(found)
  assert f"a largest error of {100 * found.fit.worst:.1f} %" in roofline and "(h200)" in roofline
  # The pass of 256 entries is measured to be faster than that of 64.
  assert one.curve.verify.worst > 0.5 and f"{100 * one.curve.verify.worst:.1f} %" in monotone
  assert f"error of {100 * abs(one.curve.round_errors[0]):.1f} %" in rounds
  assert "0.7, 0.12, 0.05, 0.02 by rank" in rates and left == "70B does not fit."


def test_prompt_lookup_is_planned_with_chains():
  found = LatencyFindings(HARDWARE["h200"], RATES, (cell(draft=None),))
  (one,) = found.cells
  plans = found.plans(one)
  assert plans.measured.choice.topology.is_chain and plans.predicted.choice.topology.is_chain
  # A call of the host per round is assumed, as for machines that are not here.
  assert one.predicted(TRUTH).fixed == pytest.approx(TRUTH.start + 100e-6)


def test_what_does_not_fit_is_named_and_the_rest_is_measured(monkeypatch):
  text = TextModel(TARGET, PARAMS, LETTERS, "tiny")
  shape, said, measured = ModelShape.of_config(TARGET.config), [], []

  def load(name, draft, **settings):
    if name == "large":
      raise DoesNotFit("needs 9.0 GiB of 1.0")
    if name == "larger":
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 9 bytes.")
    return ProfiledModel(text, shape)

  def measure(*inputs, batches, contexts, seconds, **settings):
    measured.append((*batches, *contexts, seconds))
    if batches == (4,):
      raise jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory")
    return LatencyProfile(
      dict(device="d", target="t", drafter="lookup"),
      (fit_curve(*batches, *contexts, verify=[(1, 1e-3), (8, 2e-3)], draft=[(1, 1e-6)]),),
    )

  monkeypatch.setattr(bench, "load_profiled", load)
  monkeypatch.setattr(bench, "measure_latency", measure)
  monkeypatch.setattr(bench, "device_memory", lambda: 1 << 20)
  settings = LatencySettings(batches=(4, 1, 4096), contexts=(8, 16), sizes=(1, 8), seconds=10.0)
  names = ["large", "tiny", "larger"]
  found = list(bench.measure_models(names, RATES, settings, progress=said.append))
  assert len(found) == 1 + 6 + 1 and len(found[2].cells) == 1
  # 4096 rows are known not to fit, and nothing is run for them.
  assert measured == [(1, 8, 5.0), (4, 8, 5.0), (1, 16, 5.0), (4, 16, 5.0)]
  assert [one.curve.context for one in found[-1].cells] == [8, 16]
  words = [sentence.partition(" does not fit into the memory: ") for sentence in found[-1].left_out]
  assert [what for what, _, _ in words] == [
    "large",
    *(
      f"tiny at batch {batch} with {context} tokens of context"
      for context in (8, 16)
      for batch in (4, 4096)
    ),
    "larger",
  ]
  assert words[0][2] == "needs 9.0 GiB of 1.0" and words[-1][2].endswith("Out of memory")
  assert set(found[-1].left_out) < set(said)
  (last,) = bench.measure_models(
    ["tiny"], RATES, dataclasses.replace(settings, batches=(1,), contexts=(1 << 20,))
  )
  assert not last.cells and "positions, and 1048576 tokens of context" in last.left_out[0]
  # Other errors are not hidden.
  monkeypatch.setattr(bench, "load_profiled", lambda *_, **__: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    list(bench.measure_models(["tiny"], RATES, settings))
  with pytest.raises(ValueError, match="no speed for 'float16'"):
    list(bench.measure_models(["tiny"], RATES, dataclasses.replace(settings, dtype="float16")))
