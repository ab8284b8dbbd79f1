"""A plan for a model on a mesh whose data axis adds rows, in a process of its own."""

import json

from tests.sharding.processes import printed_by


def test_one_prompt_on_two_devices_is_planned_for_the_rows_of_both(tmp_path):
  found = printed_by("../planning/planned_on_two.py", str(tmp_path))
  assert found["same"] and found["max_batch"] == 2
  assert found["forwards"] <= 20
  kinds = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
  assert kinds == ["acceptance", "latency", "plan"]
  # They belong to this mesh, so that a model on one device does not use them.
  meshes = {json.loads(path.read_text())["of"]["mesh"] for path in tmp_path.iterdir()}
  assert meshes == {"data:2,model:1,sequence:1"}
