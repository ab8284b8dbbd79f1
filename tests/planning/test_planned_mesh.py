"""A plan for a model on a mesh whose data axis adds rows, in a process of its own."""

import json

import pytest

from tests.sharding.processes import printed_by


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="module")
def found(folder):
  return printed_by("../planning/planned_on_two.py", str(folder))


def test_one_prompt_on_two_devices_is_planned_for_the_rows_of_both(found, folder):
  assert found["same"] and found["max_batch"] == 2
  assert found["forwards"] <= 20
  kinds = sorted(path.name.split("-")[0] for path in folder.iterdir())
  assert kinds == ["acceptance", "latency", "plan"]
  # They belong to this mesh, so that a model on one device does not use them.
  meshes = {json.loads(path.read_text())["of"]["mesh"] for path in folder.iterdir()}
  assert meshes == {"data:2,model:1,sequence:1"}


def test_profiles_on_two_devices_are_of_rows_that_are_split_over_both(found):
  profiled = found["profiled"]
  # Three rows: a fourth is added, as in decoding.
  assert profiled["caches"] == [[["data"], [8, 8, 8, 8]]] * 2
  assert profiled["tokens"] == [[["data"], [4, 1]], [["data"], [4, 2]]]
  assert profiled["ranked"] == ["data"] and profiled["same_ranks"]
