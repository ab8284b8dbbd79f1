"""Run by test_planned_mesh.py in a process with two CPU devices; prints what was planned for.

Its argument is a folder for the plans.
"""

import json
import sys
from unittest import mock

import jax

jax.config.update("jax_num_cpu_devices", 2)

import mtjax  # noqa: E402
from mtjax.draft import PromptLookup  # noqa: E402
from mtjax.planning import AutoPlan  # noqa: E402
from mtjax.planning.acceptance import _ranked, _ranks  # noqa: E402
from mtjax.planning.calibration.windows import Windows  # noqa: E402
from mtjax.planning.latency import _Bench  # noqa: E402
from mtjax.sharding import parse_mesh, shard_params  # noqa: E402
from mtjax.text import TextModel  # noqa: E402
from tests.draft.drafters import LETTERS, PARAMS, SMALL, SMALL_PARAMS, TARGET  # noqa: E402


def parts(tree) -> list[str]:
  """Returns the different ways in which arrays of rows are split."""
  return sorted({str(x.sharding.spec[0]) for x in jax.tree.leaves(tree)})


def profiled(text: TextModel) -> dict:
  """Returns the layout of what a latency profile times, and ranks of drafts with and without it."""
  seen = []
  bench = _Bench(text, lambda steps: PromptLookup(steps), None, "sample_match", 3, 8)
  with mock.patch("mtjax.planning.latency._forwards", lambda *inputs: seen.append(inputs)):
    with mock.patch.multiple("mtjax.planning.latency", _SAMPLE=0.0, _COLD=0):
      for one in bench.verify((1, 2)):
        one.run()
  prompts, written = [[1, 2, 3], [4], [7, 8]], [[1, 2, 3], [4, 4, 4], [7, 8, 9]]
  with mock.patch("mtjax.planning.acceptance._ranked", wraps=_ranked) as program:
    ranks = [
      [rank.tolist() for rank in _ranks(SMALL, SMALL_PARAMS, prompts, written, mesh)]
      for mesh in (None, text.mesh)
    ]
  return dict(
    caches=[(parts(cache), cache.length.tolist()) for _, _, cache, _, _ in seen],
    tokens=[(parts(token), token.shape) for *_, token, _ in seen],
    ranked=parts(program.call_args.args[2:]),
    same_ranks=ranks[0] == ranks[1],
  )


def main() -> None:
  # The mesh of the parameters is that of the model, though nobody names it.
  params = shard_params(PARAMS, parse_mesh("data:2"))
  text = TextModel(TARGET, params, LETTERS, "tiny")
  # So that drafts pay here, and following the text does, whatever the clock says: what is tested is
  # the program of the plan.
  Windows.alone = 1.0
  setattr(AutoPlan, "gain_of_following", 1.0)  # noqa: B010, it is a property
  method = mtjax.method(
    "lookup", tree="auto", length=3, context=64, seconds=0.0, folder=sys.argv[1],
    texts={"list": ["abcabcab"], "other": ["hijhij"]},
  )  # fmt: skip
  (one,), run = text.generate("abcabc", method=method, max_tokens=20)
  (plain,), _ = text.generate("abcabc", max_tokens=20)
  planned, _ = method.bind(text)
  forwards = run.counters["target_forwards"]
  record = dict(same=one.text == plain.text, max_batch=planned.max_batch, forwards=forwards)
  record["profiled"] = profiled(text)
  json.dump(record, sys.stdout)


if __name__ == "__main__":
  main()
