"""The launchers of plans, each in a process of its own, on a tiny model."""

import json

import pytest

from mtjax.cli.tuning.here import plan_config, tuned_here
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
  assert "auto and the best setting chosen by hand" in shown and len(record["notes"]) == 2
  assert any(path.name.startswith("plan-") for path in store.iterdir())


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
