"""Run by test_planned_mesh.py in a process with two CPU devices; prints what was planned for.

Its argument is a folder for the plans.
"""

import json
import sys

import jax

jax.config.update("jax_num_cpu_devices", 2)

import mtjax  # noqa: E402
from mtjax.planning.windows import Windows  # noqa: E402
from mtjax.text import TextModel  # noqa: E402
from tests.draft.drafters import LETTERS, PARAMS, TARGET  # noqa: E402


def main() -> None:
  text = TextModel(TARGET, PARAMS, LETTERS, "tiny").on_mesh("data:2")
  # So that drafts pay here, whatever the clock says: the program of the plan is what is tested.
  Windows.alone = 1.0
  method = mtjax.method(
    "lookup", tree="auto", length=3, context=64, seconds=0.0, folder=sys.argv[1],
    texts={"list": ["abcabcab"], "other": ["hijhij"]},
  )  # fmt: skip
  (one,), run = text.generate("abcabc", method=method, max_tokens=20)
  (plain,), _ = text.generate("abcabc", max_tokens=20)
  planned, _ = method.bind(text)
  forwards = run.counters["target_forwards"]
  record = dict(same=one.text == plain.text, max_batch=planned.max_batch, forwards=forwards)
  json.dump(record, sys.stdout)


if __name__ == "__main__":
  main()
