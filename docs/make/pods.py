"""Rounds of decoding compiled for meshes that are not here: python -m docs.make.pods

python -m docs.make.pods --results=results/pods.json --page=docs/pods.md
python -m docs.make.pods --results=results/pods.json --page=docs/pods.md --pods=none

Rounds of models of 7B and 70B for slices of TPUs (libtpu, of the extra `aot`), and for CPU devices
in the place of 8 H100: memory, what is exchanged, and that no logits and no cache are gathered.
Every row is written when it is compiled, and what the file has of the same versions is kept, so
that a run may be stopped and started again. --pods=none makes the page of the file as it is. About
a minute of CPU time per row.
"""

from pathlib import Path

from absl import flags

from mtjax.cli import flags as launch
from mtjax.cli.running import progress

_RESULTS = flags.DEFINE_string("results", None, "JSON file of the results.", required=True)
_PAGE = flags.DEFINE_string("page", None, "Markdown file to make from the results.")
_PODS = flags.DEFINE_list("pods", ["all"], "Slices to compile for, all or none of them.")


def compile_all(rows: dict) -> None:
  """Compiles what `rows` lacks, and writes the file after each row."""
  from mtjax.bench.pods import COMPILED, compile_rounds, table
  from mtjax.report.pods.page import key_of, record

  known = list(dict.fromkeys(pod.name for pod, _ in COMPILED))
  names = known if _PODS.value == ["all"] else _PODS.value
  if unknown := [name for name in names if name not in known]:
    raise ValueError(f"unknown slice {unknown[0]!r}; there are: {', '.join(known)}, all and none")
  memory = table()
  for pod, case in COMPILED:
    if pod.name not in names or key_of(pod, case) in rows:
      continue
    (found,) = compile_rounds(pod, [case])
    found.check()
    rows[key_of(pod, case)] = found
    ordered = [rows[key] for job in COMPILED if (key := key_of(*job)) in rows]
    record(_RESULTS.value, ordered, memory, complete=len(ordered) == len(COMPILED))
    progress(f"{case} on {pod.name} is compiled")


def run() -> None:
  launch.check_output(_RESULTS, _PAGE)
  from mtjax.report.pods.page import compiled_rows, page
  from mtjax.report.results import read

  rows = compiled_rows(_RESULTS.value) if Path(_RESULTS.value).exists() else {}
  if _PODS.value != ["none"]:
    compile_all(rows)
  if _PAGE.value is not None:
    Path(_PAGE.value).write_text(page(read(_RESULTS.value)), encoding="utf-8")


if __name__ == "__main__":
  launch.main(run)
