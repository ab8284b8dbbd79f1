"""The latency of models on this machine, the roofline that explains it, and the trees of both.

python -m experiments.bench.planning.latency --models=target --results=results/latency.json

Models are bundled ones, folders and other names of mtjax.load, or published sizes such as 1B and 8B
(mtjax/tuning/roofline/published.py): Llamas of that shape with random weights, which are as fast as
trained ones. The device needs memory for one target with its draft model; what does not fit is
named and left out. On a GPU:

python -m experiments.bench.planning.latency --models=135M,0.5B,1B,3B,8B --results=results/gpu.json
"""

from absl import flags
from rich.console import Console

from mtjax.bench.planning.latency import LatencyFindings, LatencySettings, measure_models
from mtjax.bench.planning.profiled import LAYERS
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.cli.tuning.elsewhere import known_acceptance
from mtjax.cli.tuning.writing import numbers
from mtjax.planning.latency import SIZES, STEPS
from mtjax.report import results
from mtjax.report.plans.latency import latency_notes, latency_tables
from mtjax.sharding import parse_mesh

_MODELS = flags.DEFINE_list("models", ["target"], "Target models, or published sizes.")
_DRAFT = flags.DEFINE_string(
  "draft",
  None,
  "Draft model or size of all targets, or lookup. Default: draft for target; for a size the "
  "largest one with a sixth of its weights; prompt lookup for others.",
)
_BATCH = flags.DEFINE_list("batch", ["1", "4", "16", "64"], "Numbers of rows.")
_CONTEXTS = flags.DEFINE_list(
  "context", ["256"], "Committed tokens per row; several are measured apart."
)
_SIZES = flags.DEFINE_list("sizes", [f"{size}" for size in SIZES], "Entries per row of a pass.")
_STEPS = flags.DEFINE_list("steps", [f"{count}" for count in STEPS], "Steps of drafting.")
_SECONDS = flags.DEFINE_float(
  "seconds", 120.0, "Time per model and batch size, with compiling; large passes are left out.", 0.0
)
_DTYPE = flags.DEFINE_enum(
  "dtype",
  None,
  ["float32", "bfloat16", "float16"],
  "Of weights and arithmetic. Default: that of the file; for sizes bfloat16, on a CPU float32.",
)
_LAYERS = flags.DEFINE_enum(
  "layers", "unrolled", LAYERS, "Layers of sizes; stacked ones compile faster. Not on a CPU."
)
_MESH = flags.DEFINE_string("mesh", None, "Devices, such as data:2,model:4. Default: one.")
_ACCEPTANCE = flags.DEFINE_string(
  "acceptance", "0.7,0.12,0.05,0.02", "Rates of acceptance by rank, for the trees."
)
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def publish(found: LatencyFindings, *, complete: bool) -> None:
  results.write(
    _RESULTS.value,
    "latency",
    tables=latency_tables(found),
    rows=found.rows(),
    units=dict.fromkeys(
      (
        "seconds", "fitted_seconds", "roofline_seconds", "draft_seconds", "fixed_seconds",
        "plain_seconds",
      ),
      "s",
    ),
    settings=launch.settings(__name__),
    notes=latency_notes(found),
    complete=complete,
  )  # fmt: skip


def run() -> None:
  launch.check_output(_RESULTS)
  names, mesh = launch.distinct(_MODELS), parse_mesh(_MESH.value)
  settings = LatencySettings(
    batches=numbers("batch", _BATCH.value),
    contexts=numbers("context", _CONTEXTS.value),
    sizes=numbers("sizes", _SIZES.value),
    steps=numbers("steps", _STEPS.value),
    seconds=_SECONDS.value,
    draft=_DRAFT.value,
    dtype=_DTYPE.value,
    mesh=mesh,
    layers=_LAYERS.value,
  )
  rates = known_acceptance(_ACCEPTANCE.value, "", "", progress).rates
  found = None
  for found in measure_models(names, rates, settings, progress=progress):
    if found.cells:
      publish(found, complete=False)
  if found is None or not found.cells:
    raise ValueError(f"nothing was measured: {'; '.join(found.left_out if found else ())}")
  for table in latency_tables(found):
    Console(width=150).print(table.for_terminal())
  for note in latency_notes(found):
    print(note)
  publish(found, complete=True)


if __name__ == "__main__":
  launch.main(run)
