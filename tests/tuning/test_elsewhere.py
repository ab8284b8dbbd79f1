"""Plans for machines that are not here: names, shapes, given acceptance, tables and pictures."""

import dataclasses
import json

import numpy as np
import pytest

from mtjax.cli.tuning.elsewhere import read_acceptance, shape_of, tuned_elsewhere
from mtjax.cli.tuning.writing import batches, check, check_plans, save
from mtjax.report.plans import figure, label, plan_table
from mtjax.report.plans.tree import places
from mtjax.trees import Topology
from mtjax.tuning import Siblings
from mtjax.tuning.elsewhere import DistantDrafter, distant_curve, plan_elsewhere
from mtjax.tuning.plan_file import load_plan
from mtjax.tuning.profiles import AcceptanceCounts, AcceptanceProfile
from mtjax.tuning.roofline import MeshSize, parse_machine, published_shape, step_cost
from mtjax.tuning.roofline.step import held_bytes
from tests.tuning.published import PPD_7B

RATES = np.tile(PPD_7B, (2, 1))


@pytest.mark.parametrize(
  ("name", "kind", "devices"),
  [
    ("h100", "h100", 1), ("8xh100", "h100", 8), ("h200-4", "h200", 4), ("v5e-8", "v5e", 8),
    ("v5p-16", "v5p", 8), ("4xv5p", "v5p", 4), ("v6e-8", "v6e", 8), ("cpu", "cpu", 1),
  ],
)  # fmt: skip
def test_a_machine_is_a_kind_and_a_number_of_devices(name, kind, devices):
  machine = parse_machine(name)
  assert (machine.name, machine.hardware.name, machine.devices) == (name, kind, devices)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("v9-8", "no hardware 'v9': give one of h100"),
    ("2xv5e-8", "no hardware '2xv5e-8': give one of h100.*as in v5e-8 or 8xh100"),
    ("", "no hardware ''"),
    ("v5e-0", "not a whole number of devices of at least 1"),
    ("v5p-3", "v5p counts 2 cores per chip"),
  ],
)
def test_a_machine_that_is_none_is_refused(name, message):
  with pytest.raises(ValueError, match=message):
    parse_machine(name)


def test_a_mesh_is_the_fastest_of_those_that_a_model_fits_on():
  machine, sizes = parse_machine("v5e-8"), dict(batch=1, context=64)
  shape = published_shape("8B")
  assert machine.mesh(shape, **sizes) == MeshSize(data=1, model=8)
  assert machine.mesh(published_shape("135M"), **sizes) == MeshSize(data=8, model=1)
  small = published_shape("68M")
  seconds = {
    mesh: step_cost(machine.hardware, small, entries=1, mesh=mesh, **sizes).seconds
    for mesh in (MeshSize(8, 1), MeshSize(4, 2), MeshSize(2, 4))
  }
  assert set(machine.meshes(small)) == set(seconds)
  assert machine.mesh(small, **sizes) == min(seconds, key=lambda mesh: seconds[mesh])
  # Beside other models, the fastest may not fit.
  free = held_bytes(small, batch=1, tokens=65, mesh=MeshSize(2, 4)) + 1
  full = machine.mesh(small, others=machine.hardware.memory - free, **sizes)
  assert str(full) == "data:2,model:4" and str(MeshSize()) == "data:1"


def test_a_mesh_that_keeps_all_key_heads_on_every_device_is_left_for_one_that_splits_them():
  """64 rows of 4,096 tokens: their keys and values are 86 GB, a device has 32 GB."""
  machine, shape = parse_machine("v6e-16"), published_shape("70B")
  sizes = dict(batch=64, context=4096)
  found = machine.mesh(shape, entries=64, **sizes)
  assert found == MeshSize(data=2, model=8)
  with pytest.raises(ValueError, match=r"take 9\d\.\d GB per device, v6e has 32 GB"):
    step_cost(machine.hardware, shape, entries=1, mesh=MeshSize(model=16), **sizes)
  drafter = DistantDrafter("draft", RATES, published_shape("1B"))
  curve = distant_curve(machine, shape, drafter, **sizes)
  cost = step_cost(machine.hardware, shape, entries=3, mesh=found, **sizes)
  assert curve.verify(3) == pytest.approx(float(cost.seconds))


@pytest.mark.parametrize(
  ("name", "billions"),
  [("68M", 0.0434), ("135M", 0.134), ("7B", 6.607), ("8B", 7.504), ("70B", 69.5), ("405B", 403.7)],
)
def test_published_shapes_have_the_weights_that_a_pass_reads(name, billions):
  """All weights but the table of embeddings, of which a pass reads a row per token."""
  assert published_shape(name).weights / 1e9 == pytest.approx(billions, rel=0.01)
  assert published_shape(name, bits=8).weight_bytes == 1


def test_shapes_of_models_come_from_their_configs_alone(tmp_path):
  bundled = shape_of("target", "bfloat16")
  assert bundled.dtype == "bfloat16" and bundled.weight_bytes == 2 and bundled.layers > 1
  assert shape_of("7B", "float32").weight_bytes == 4
  with pytest.raises(ValueError, match="no model 'nothing': give a published size"):
    shape_of("nothing", "bfloat16")


def test_machines_and_batches_have_plans_of_their_own():
  target, draft = published_shape("8B"), published_shape("1B")
  one = DistantDrafter("draft", RATES, draft)
  found = {}
  for name in ("h100", "v5e-8"):
    for batch in (1, 64):
      plan, (competitor,) = plan_elsewhere(
        parse_machine(name), target, [one], batch=batch, context=1024
      )
      found[name, batch] = plan.choice
      curve = distant_curve(parse_machine(name), target, one, batch=batch, context=1024)
      assert competitor.latency == curve and curve.max_entries == 64
  assert len({one.topology for one in found.values()}) == 4
  assert found["h100", 64].topology.size < found["h100", 1].topology.size
  # A store on the host drafts without a pass, but costs a call per round.
  lookup = dataclasses.replace(one, name="lookup", shape=None, siblings=Siblings.ONE)
  times = distant_curve(parse_machine("h100"), target, lookup, batch=1, context=1024)
  assert times.draft(4) < 1e-5 and times.fixed > 1e-4


def test_plain_decoding_leaves_no_memory_to_a_draft_model():
  """The fastest mesh keeps all key heads on every device, and has no memory for a draft model."""
  machine, target = parse_machine("v6e-16"), published_shape("70B")
  sizes = dict(batch=16, context=4096)
  held = held_bytes(target, batch=16, tokens=4096 + 64, mesh=MeshSize(model=16))
  hardware = dataclasses.replace(machine.hardware, memory=held + 1e6)
  machine = dataclasses.replace(machine, hardware=hardware)
  one = DistantDrafter("draft", RATES, published_shape("1B"))
  found, _ = plan_elsewhere(machine, target, [one], **sizes)
  beside = distant_curve(machine, target, one, **sizes)
  alone = distant_curve(machine, target, dataclasses.replace(one, shape=None), **sizes)
  assert beside.plain > 1.05 * alone.plain and found.plain.seconds == pytest.approx(alone.plain)


def test_models_that_do_not_fit_together_are_refused():
  one = DistantDrafter("draft", RATES, published_shape("1B"))
  machine, seven = parse_machine("v5e"), published_shape("7B")
  distant_curve(machine, seven, dataclasses.replace(one, shape=None), batch=1, context=1024)
  with pytest.raises(ValueError, match=r"target and draft model with their caches take .* v5e has"):
    distant_curve(machine, seven, one, batch=1, context=1024)
  with pytest.raises(ValueError, match="the model and its cache take"):
    alone = dataclasses.replace(one, shape=None)
    plan_elsewhere(machine, published_shape("70B"), [alone], batch=1, context=1024)


def profile(drafter="draft"):
  tried = np.array([[100, 100, 0], [70, 70, 0]])
  counts = AcceptanceCounts(tried, np.array([[60, 10, 0], [40, 9, 0]]), 100)
  return AcceptanceProfile(dict(target="t", drafter=f"{drafter} sizes 4"), {"code": counts})


def test_acceptance_is_a_profile_or_rates_by_rank(tmp_path):
  file = str(tmp_path / "profile.json")
  profile().save(file)
  found = read_acceptance([file, f"lookup={file}", "suffix=0.6,0.2"], "code")
  assert list(found) == ["draft", "lookup", "suffix"]
  assert found["draft"].rates[0].tolist() == [0.6, 0.1, 0.0]
  assert found["suffix"].rates.tolist() == [[0.6, 0.2]] * 8 and found["suffix"].profile is None
  with pytest.raises(ValueError, match="two entries of 'draft': name one NAME=FILE"):
    read_acceptance([file, "draft=0.5"], "all")
  with pytest.raises(ValueError, match="no domain 'prose'"):
    read_acceptance([file], "prose")
  with pytest.raises(FileNotFoundError):
    read_acceptance(["draft=nowhere.json"], "all")
  with pytest.raises(ValueError, match="names 'eagle', which cannot be planned; there are: lookup"):
    read_acceptance(["eagle=0.8,0.1"], "all")


def test_a_profile_of_another_target_is_refused_or_named(tmp_path):
  """A model with a name has profiles of its own; what a published size stands for is not known."""
  file = str(tmp_path / "profile.json")
  profile().save(file)
  given = read_acceptance([file], "all")
  with pytest.raises(ValueError, match="of the target 't' and not of --target=target"):
    tuned_elsewhere("h100", "target", "draft", [], given, **settings())
  (made,) = tuned_elsewhere("v5e-8", "8B", "1B", [], given, **settings())
  assert made.notes[0] == "The acceptance of draft was measured with the target 't'."
  assert made.notes[1].startswith("The target is on the mesh model:8, and the draft model on ")


def settings(**changes):
  return (
    dict(batches=[1], context=256, max_entries=64, dtype="bfloat16", domain="all", progress=print)
    | changes
  )


def test_what_cannot_be_measured_must_be_given():
  with pytest.raises(ValueError, match="7B is a size and no model: give --acceptance=NAME=FILE"):
    tuned_elsewhere("h100", "7B", "1B", ["draft"], {}, **settings())
  with pytest.raises(ValueError, match="'suffix' cannot be measured"):
    tuned_elsewhere("h100", "target", "draft", ["suffix"], {}, **settings())
  with pytest.raises(ValueError, match="--drafters names 'eagle', which cannot be planned"):
    tuned_elsewhere("h100", "target", "draft", ["eagle"], {}, **settings())


def test_files_are_checked_before_acceptance_is_measured():
  def refuse(identities):
    assert [of["batch"] for of in identities] == ["1", "4"]
    assert identities[0]["drafters"] == "draft,lookup" and identities[0]["draft_model"] == "draft"
    raise ValueError("refused")

  with pytest.raises(ValueError, match="refused"):
    tuned_elsewhere(
      "h100", "target", "draft", ["draft", "lookup"], {}, **settings(batches=[1, 4], check=refuse)
    )


@pytest.fixture(scope="module")
def plans():
  """On a small chip the batch of 256 is best decoded plainly."""
  given = read_acceptance(["draft=0.6,0.15,0.06", "lookup=0.3"], "all")
  made = tuned_elsewhere("v5e-8", "8B", "1B", [], given, **settings(batches=[1, 256]))
  return [dataclasses.replace(one, profiles={"draft": profile()}) for one in made]


def test_the_table_has_the_best_of_each_drafter_and_kind(plans):
  first, last = plans
  assert [label(one) for one in first.best_rounds] == [
    "draft, tree", "lookup, chain", "draft, chain", "plain decoding"
  ]  # fmt: skip
  table = plan_table(first)
  assert table.title == "8B on v5e-8 (roofline), batch 1, 256 tokens of context"
  assert table.rows[0][0] == "> draft, tree" and "measured speed-up" not in table.header
  assert last.plan.choice.drafter is None and last.drawn is not None
  assert plan_table(last).rows[0][0] == "> plain decoding"
  measured = dataclasses.replace(first, measured={"plain decoding": 10.0, "draft, tree": 15.0})
  shown = plan_table(measured)
  assert shown.header[-1] == "measured speed-up"
  assert [row[-1] for row in shown.rows] == ["1.500", "", "", "1.000"]
  rows = measured.rows()
  assert rows[0]["chosen"] and rows[0]["measured_speedup"] == 1.5
  assert rows[1]["round"] == table.rows[1][0]
  assert rows[0]["speedup"] == pytest.approx(first.plan.speedup)


def test_the_picture_shows_tree_acceptance_times_and_speeds(plans):
  first, last = plans
  drawn = figure(dataclasses.replace(first, measured={"plain decoding": 1.0, "draft, tree": 1.5}))
  tree, acceptance, latency, speed = drawn.axes
  texts = [text.get_text() for text in tree.texts]
  assert texts[0] == "root" and texts[1] == "0.60" and len(texts) == first.drawn.topology.size
  assert "(95 % intervals)" in acceptance.get_title()
  # The third candidate was never tried: no line, and no interval of 0 to 1.
  labels = [line.get_label() for line in acceptance.lines]
  assert labels == ["first candidate", "second candidate"] and len(acceptance.collections) == 2
  (point,) = [line for line in latency.lines if line.get_label() == "this plan"]
  assert point.get_xdata() == [first.plan.choice.entries]
  assert point.get_ydata()[0] == pytest.approx(1e3 * first.plan.choice.seconds)
  assert speed.get_title() == "predicted and measured speed"
  assert [text.get_text() for text in speed.get_yticklabels()][-1] == "draft, tree"
  assert "plain decoding is fastest; the best draft" in figure(last).axes[0].get_title()
  nothing = dataclasses.replace(last.plan, ranking=(last.plan.plain,))
  with pytest.raises(ValueError, match="nothing to draw"):
    figure(dataclasses.replace(last, plan=nothing))


def test_leaves_stand_beside_each_other_and_parents_above_their_children():
  assert places(Topology((-1, 0, 0, 1, 1), (0, 0, 1, 0, 1))) == [1.25, 0.5, 2.0, 0.0, 1.0]


def test_plans_pictures_and_results_are_written_per_batch(plans, tmp_path):
  pictures = [tmp_path / "tree.svg"]
  output, found = tmp_path / "plan.json", tmp_path / "results.json"
  save(plans, pictures, str(output), str(found), dict(a=1))
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {
    "tree-batch1.svg", "tree-batch256.svg",
    "plan-batch1.json", "plan-batch256.json", "results.json",
  }  # fmt: skip
  first = plans[0]
  loaded = load_plan(tmp_path / "plan-batch1.json", target="8B", batch="1")
  assert loaded.choice == first.plan.choice and loaded.ranking == first.plan.ranking
  record = json.loads(found.read_text())
  assert record["benchmark"] == "tune_tree" and len(record["rows"]) == 7
  assert "0.60" in (tmp_path / "tree-batch1.svg").read_text()
  # A plan of something else stays as it is.
  before = (tmp_path / "plan-batch1.json").read_text()
  other = [dataclasses.replace(plans[0], target="7B"), plans[1]]
  with pytest.raises(ValueError, match="is of something else"):
    save(other, [], str(output), None, {})
  assert (tmp_path / "plan-batch1.json").read_text() == before
  # So it does beside a plan of other drafters, and that is known before the work.
  check_plans(str(output), [one.identity for one in plans])
  check_plans(None, [one.identity for one in other])
  lookup = [dataclasses.replace(one, of={**one.of, "drafters": "lookup"}) for one in plans]
  with pytest.raises(ValueError, match="drafters 'draft,lookup' and not 'lookup'"):
    check_plans(str(output), [one.identity for one in lookup])
  # What else was asked for is written all the same.
  with pytest.raises(ValueError, match="is of something else"):
    save(lookup, [tmp_path / "late.svg"], str(output), str(tmp_path / "late.json"), {})
  assert (tmp_path / "late-batch1.svg").exists() and (tmp_path / "late.json").exists()


def test_mistakes_are_answered_before_anything_runs(tmp_path):
  assert batches(["1", "16"]) == [1, 16]
  for given in (["0"], ["1", "1"], [], ["a"]):
    with pytest.raises(ValueError, match="--batch must be"):
      batches(given)
  with pytest.raises(ValueError, match="a picture is one of"):
    check([tmp_path / "tree.txt"], None)
  with pytest.raises(ValueError, match="in a folder that does not exist"):
    check([], str(tmp_path / "nowhere" / "plan.json"))
