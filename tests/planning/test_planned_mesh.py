"""A plan for a model on a mesh whose data axis adds rows, in a process of its own."""

from tests.sharding.processes import printed_by


def test_one_prompt_on_two_devices_is_planned_for_the_rows_of_both(tmp_path):
  found = printed_by("../planning/planned_on_two.py", str(tmp_path))
  assert found["same"] and found["max_batch"] == 2
  assert found["forwards"] <= 20
  kinds = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
  assert kinds == ["acceptance", "latency", "plan"]
