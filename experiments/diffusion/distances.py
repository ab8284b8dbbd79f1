r"""Measures what each deciding policy of diffusion does to the distribution of texts.

python -m experiments.diffusion.distances --results=results/diffusion_distances.json

Every outcome of every pass is enumerated on two small tables in place of a network, so the figures
have no noise. Takes about a minute on one core. docs/diffusion_distances.md shows them.
"""

import sys

from absl import flags
from rich.console import Console

from mtjax.cli import flags as launch
from mtjax.cli.running import progress

_RESULTS = flags.DEFINE_string(
  "results", None, "JSON file that docs/diffusion_distances.md is made from."
)
_POLICIES = flags.DEFINE_multi_string(
  "policy", [], "Name of a policy to measure, as in the table; may be repeated. Default: all."
)
_ROUNDING = 1e-12  # distances below it are 0 but for rounding


def run() -> None:
  launch.check_output(_RESULTS)
  # Imported here: a mistake in the command is answered at once.
  from mtjax.evaluate.denoising import distances
  from mtjax.report import results
  from mtjax.report.cells import Cells

  names = _POLICIES.value or list(distances.POLICIES)
  if unknown := [name for name in names if name not in distances.POLICIES]:
    raise ValueError(
      f"there is no policy {unknown[0]!r}; there are: {'; '.join(distances.POLICIES)}"
    )
  policies = {name: distances.POLICIES[name] for name in names}
  rows = list(distances.measure(policies, progress=progress))
  lines = []
  for row in rows:
    far = [f"{x:.4f}" if x > _ROUNDING else "0" for x in row["total_variation"].values()]
    lines.append((row["policy"], row["exactness"], f"{row['passes']:.2f}", *far))
  header = ("policy", "claims", "passes", "conditionals agree", "conditionals disagree")
  table = Cells("Total variation distance from one position per pass", header, lines)
  Console(file=sys.stdout).print(table.for_terminal())
  results.write(
    _RESULTS.value,
    "diffusion_distances",
    tables=[table],
    rows=rows,
    settings=dict(
      positions=distances.LENGTH,
      tokens=distances.VOCAB,
      seed=distances.SEED,
      concentration=distances.CONCENTRATION,
      noise=distances.NOISE,
    ),
    units=dict(passes="mean number of passes", total_variation="distance, from 0 to 1"),
  )


if __name__ == "__main__":
  launch.main(run)
