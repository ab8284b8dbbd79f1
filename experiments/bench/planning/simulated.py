"""Plans of one model on several machines against the best of a grid of trees, simulated.

python -m experiments.bench.planning.simulated --results=results/simulated_plans.json

Acceptance is that of the bundled pair, measured here (or --acceptance=RATE,RATE: rates by rank).
Times are those of SmolLM2-135M: on this CPU from results/verification.json, on other machines by
the roofline; the draft model is as large as the first layers of that model. Rounds are sampled one
by one: the planner's formulas have no part in them.
"""

import json
from pathlib import Path

from absl import flags
from rich.console import Console

from mtjax.bench.planning.simulated import compare, curves, first_layers
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.cli.tuning.elsewhere import known_acceptance
from mtjax.report import results
from mtjax.report.cells import Cells
from mtjax.tuning.roofline import published_shape

_MACHINES = flags.DEFINE_list(
  "machines", ["h100", "v5e-8"], "Machines beside this CPU, as --hardware of tune_tree has them."
)
_ACCEPTANCE = flags.DEFINE_string("acceptance", None, "Rates by rank in place of measured ones.")
_VERIFICATION = flags.DEFINE_string(
  "verification", "results/verification.json", "Results of the benchmark of verification."
)
_LAYERS = flags.DEFINE_integer("layers", 2, "Layers of the draft model.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 50_000, "Simulated rounds per tree.", lower_bound=100)
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")

_HEADER = (
  "machine", "drafts", "depth", "tokens per round", "over plain decoding", "drafts of the best",
  "depth", "planned over best",
)  # fmt: skip


def table(found: dict) -> Cells:
  rows = []
  for name, one in found.items():
    plan, best = one.planned, one.best
    rows.append(
      (
        name,
        f"{plan.topology.size - 1}",
        f"{plan.topology.height}",
        f"{plan.tokens:.3f}",
        f"{plan.tokens_per_second / one.plain.tokens_per_second:.3f}",
        f"{best.topology.size - 1}",
        f"{best.topology.height}",
        f"{one.share:.3f}",
      )
    )
  return Cells("planned trees, and the best of a grid", _HEADER, rows)


def row(name: str, one) -> dict:
  return dict(
    machine=name,
    planned=list(one.planned.topology.parent),
    best=list(one.best.topology.parent),
    tokens_per_second=one.planned.tokens_per_second,
    best_tokens_per_second=one.best.tokens_per_second,
    plain_tokens_per_second=one.plain.tokens_per_second,
    share=one.share,
    trees=one.trees,
  )


def run() -> None:
  launch.check_output(_RESULTS, inputs=[_VERIFICATION])
  known = json.loads(Path(_VERIFICATION.value).read_text(encoding="utf-8"))["rows"]
  rates = known_acceptance(_ACCEPTANCE.value, "target", "draft", progress).rates
  target = published_shape("135M")
  times = curves(known, _MACHINES.value, target, first_layers(target, _LAYERS.value), rates)
  found = compare(times, rates, rounds=_ROUNDS.value)
  Console(width=130).print(table(found).for_terminal())
  results.write(
    _RESULTS.value,
    "simulated_plans",
    tables=[table(found)],
    rows=[row(name, one) for name, one in found.items()],
    units=dict.fromkeys(
      ("tokens_per_second", "best_tokens_per_second", "plain_tokens_per_second"), "tokens/s"
    ),
    settings={**launch.settings(__name__), "rates": rates.round(4).tolist()},
    notes=[f"The grids have {min(one.trees for one in found.values())} trees or more."],
  )


if __name__ == "__main__":
  launch.main(run)
