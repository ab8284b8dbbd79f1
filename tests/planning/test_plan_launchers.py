"""The launchers of plans, each in a process of its own, on a tiny model."""

import json
import types

import numpy as np
import pytest

from mtjax.cli.tuning import here
from mtjax.cli.tuning.here import PlannedDecoding, plan_config, tuned_here
from mtjax.sampling.logits import Sampling
from mtjax.tuning import Competitor, Siblings, plan
from mtjax.tuning.profiles import fit_curve
from tests import tiny_model
from tests.forked import launch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tiny_model.save(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """The folder of one set of a few prompts."""
  root = tmp_path_factory.mktemp("data")
  (root / "gsm8k").mkdir()
  lines = [json.dumps(dict(question=f"What is {n} and {n}, and {n}?")) for n in range(4)]
  (root / "gsm8k" / "test.jsonl").write_text("\n".join(lines))
  return root


def test_auto_is_compared_with_settings_that_are_chosen_by_hand(folder, data, tmp_path):
  out, store = tmp_path / "auto_plan.json", tmp_path / "store"
  code, shown, said = launch(
    "experiments.bench.planning.auto_plan", f"--data={data}", f"--models={folder}", "--batch=1",
    "--sets=gsm8k", "--drafters=lookup", "--setting=lookup:length=3", "--prompts=1",
    "--prompt_tokens=32", "--tokens=32", "--repeats=1", "--batches=1", "--calibration_prompts=2",
    "--seconds=1", f"--folder={store}", f"--results={out}",
  )  # fmt: skip
  assert code == 0, said
  record = json.loads(out.read_text())
  assert record["complete"] and [row["setting"] for row in record["rows"]] == [
    "auto", "ar", "lookup:length=3"
  ]  # fmt: skip
  assert all(row["tokens_per_second"] > 0 and row["error"] is not None for row in record["rows"])
  assert [type(row["follows"]) for row in record["rows"]] == [bool, type(None), type(None)]
  assert "auto and the best setting chosen by hand" in shown and len(record["notes"]) == 2
  assert any(path.name.startswith("plan-") for path in store.iterdir())


def test_the_latency_of_a_model_is_measured_fitted_and_planned_with(folder, tmp_path):
  out = tmp_path / "latency.json"
  code, shown, said = launch(
    "experiments.bench.planning.latency", f"--models={folder}", f"--draft={folder}", "--batch=1",
    "--context=16", "--sizes=1", "--steps=1", "--seconds=0", f"--results={out}",
  )  # fmt: skip
  assert code == 0, said
  record = json.loads(out.read_text())
  (row,) = record["rows"]
  assert record["complete"] and row["entries"] == [1, 2] and row["steps"] == [1]
  assert min(row["seconds"] + row["roofline_seconds"]) > 0 and row["draft"] == str(folder)
  assert "chosen trees" in shown and "the roofline of this machine" in shown
  assert len(record["notes"]) == 3 and "batch 1, context 16: measuring, 2 of 7" in said


def test_a_plan_of_another_machine_is_printed_drawn_and_written(tmp_path):
  picture, output = tmp_path / "tree.svg", tmp_path / "plan.json"
  command = (
    "experiments.tune_tree", "--hardware=v5e-8", "--target=8B", "--draft=1B",
    "--acceptance=draft=0.7,0.1", f"--picture={picture}", f"--output={output}",
  )  # fmt: skip
  code, shown, said = launch(*command)
  assert code == 0, said
  assert "> draft, tree" in shown and "At batch 1 the plan is draft, a tree of" in shown
  assert picture.read_text().startswith("<?xml")
  assert json.loads(output.read_text())["choice"]["drafter"] == "draft"


def test_mistakes_are_answered_in_one_line_before_a_model_is_loaded():
  code, _, said = launch("experiments.tune_tree", "--hardware=h100", "--repeats=2")
  assert code == 2 and "with --hardware, --repeats would do nothing" in said.splitlines()[-1]
  code, _, said = launch("experiments.bench.planning.latency", "--sizes=1,two")
  assert code == 2 and "--sizes must be whole numbers, got 1,two" in said.splitlines()[-1]
  with pytest.raises(ValueError, match="names 'medusa'; there are: lookup, trie, suffix"):
    plan_config(["lookup", "medusa"], "draft", 256, 60.0)
  settings = dict(batches=[1], seconds=1.0, repeats=1, progress=print)
  with pytest.raises(ValueError, match="hold a prompt and 200 new tokens.*give --tokens=128"):
    tuned_here("target", "draft", ["lookup"], context=256, max_tokens=200, **settings)


def test_a_plan_of_one_drafter_asks_for_its_trees_and_one_of_several_for_auto():
  one = plan_config(["draft_tree"], "other", 64, 5.0)
  assert (one["method"], one["tree"], one["draft_model"]) == ("draft_tree", "auto", "other")
  several = plan_config(["lookup", "suffix"], "other", 64, 5.0)
  assert (several["method"], several["of"]) == ("auto", "lookup,suffix")
  assert several["plan"]["context"] == one["plan"]["context"] == 64


def test_the_plan_is_of_what_is_decoded():
  decoding = PlannedDecoding("data:2", "int8", 0.7, 0.9, "rrs_without", ("code=a.py",))
  config = plan_config(["lookup", "draft"], "other", 64, 5.0, decoding)
  assert (config["mesh"], config["weights"], config["verifier"]) == (
    "data:2", "int8", "rrs_without"
  )  # fmt: skip
  assert (config["temperature"], config["top_p"]) == (0.7, 0.9)
  assert config["plan"]["texts"] == ("code=a.py",)
  assert plan_config(["draft"], "other", 64, 5.0)["verifier"] == "block"
  with pytest.raises(ValueError, match="no verifier 'best'; there are block, chain"):
    plan_config(["lookup"], "", 64, 5.0, PlannedDecoding(verifier="best"))


@pytest.fixture
def seen(monkeypatch):
  """What is loaded, planned and measured, none of which is done."""
  seen = {}
  curve = fit_curve(4, 64, verify=[(1, 0.02), (8, 0.03)], draft=[(1, 0.001), (4, 0.004)])
  competitor = Competitor("lookup", np.full((4, 1), 0.8), curve, Siblings.ONE)
  tokenizer = types.SimpleNamespace(encode=lambda text: list(text.encode()))
  text = types.SimpleNamespace(
    name="some", mesh=None, params={}, tokenizer=tokenizer, model=types.SimpleNamespace(config=1)
  )

  def load(target, **settings):
    seen["load"] = settings
    return text

  def find_plan(config, text, rows):
    seen.setdefault("planned", []).append(rows)
    seen["config"] = config
    replanner = types.SimpleNamespace(start_competitors=lambda rows: [competitor], drafters=[])
    return types.SimpleNamespace(plan=plan([competitor]), replanner=replanner, made_alone=print)

  def measure_speeds(text, systems, **settings):
    seen["measured"] = settings
    return {name: [1.0] for name in systems}

  for function in (load, find_plan, measure_speeds):
    monkeypatch.setattr(here, function.__name__, function)
  return seen


def tune(batches, **changes):
  given = dict(context=64, seconds=1.0, max_tokens=8, repeats=1, progress=print)
  return tuned_here("some", "draft", ["lookup"], batches=batches, **(given | changes))


def test_speeds_are_measured_with_the_sampling_mesh_and_texts_of_the_plan(seen, tmp_path):
  (tmp_path / "a.py").write_text("def add(a, b):\n  return a + b\n")
  texts = (f"code={tmp_path / 'a.py'}",)
  decoding = PlannedDecoding(mesh="data:1", temperature=0.7, top_p=0.9, texts=texts)
  (found,) = tune([4], decoding=decoding)
  assert seen["load"] == dict(weights="stored", mesh="data:1")
  assert seen["config"]["temperature"] == 0.7 and list(seen["config"]["plan"]["texts"]) == ["code"]
  sampling = seen["measured"]["sampling"]
  assert (sampling.temperature, sampling.top_p) == (0.7, 0.9)
  assert list(seen["measured"]["texts"]) == ["code"]
  assert found.identity["drafters"] == "lookup" and found.identity["draft_model"] == ""
  assert found.identity["sampling"] == repr(Sampling(temperature=0.7, top_p=0.9))
  assert found.identity["verifier"] == "sample_match"


def test_two_batches_of_one_plan_are_refused_and_files_checked_before_anything_is_measured(seen):
  with pytest.raises(ValueError, match="--batch=3,4 would be one plan twice, of 4 rows"):
    tune([3, 4])

  def refuse(identities):
    assert [of["batch"] for of in identities] == ["1", "4"]
    raise ValueError("a file is of something else")

  with pytest.raises(ValueError, match="a file is of something else"):
    tune([1, 3], check=refuse)
  assert "planned" not in seen
