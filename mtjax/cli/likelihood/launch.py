r"""The part of mtjax/cli/evaluate.py that scores texts under a masked diffusion model.

mtjax-evaluate --model=masked --text="books=file:valid/*.txt.gz" --bytes=4000 \
  --likelihood=monte_carlo,discrete_time,order_average,pseudo,unweighted

Each estimator of --likelihood gives bits per byte of the same rows of --length tokens. The first
three bound them from above, up to the standard error; the other two are no bounds, and are there
because they are published as such (mtjax/diffusion/likelihood/estimators.py).
"""

import dataclasses
import sys
from typing import TYPE_CHECKING

from absl import flags
from rich.console import Console

from mtjax.cli.running import progress, results_file, seldom

if TYPE_CHECKING:
  from mtjax.sharding import MeshLike

VALUES = flags.FlagValues()

LIKELIHOOD = flags.DEFINE_list(
  "likelihood",
  [],
  "Score a masked diffusion model by these estimators: monte_carlo, discrete_time, order_average, "
  "pseudo, unweighted.",
  flag_values=VALUES,
)
_SAMPLES = flags.DEFINE_integer(
  "samples",
  32,
  "With --likelihood: number of maskings per row.",
  lower_bound=2,
  flag_values=VALUES,
)
_STEPS = flags.DEFINE_integer(
  "steps",
  128,
  "With --likelihood=discrete_time: number of steps of the process that is bounded.",
  lower_bound=1,
  flag_values=VALUES,
)
FLAGS = (LIKELIHOOD, _SAMPLES, _STEPS)


def run(
  model_name: str,
  texts: list[str],
  *,
  weights: str,
  limit: int | None,
  length: int,
  context: int,
  batch: int,
  mesh: "MeshLike" = "",
  output: str | None,
  results_path: str | None,
) -> None:
  from mtjax import hosts
  from mtjax.diffusion.denoising.network import MaskedNetwork
  from mtjax.diffusion.likelihood.estimators import by_name
  from mtjax.evaluate.diffusion_likelihood import diffusion_likelihood
  from mtjax.evaluate.texts import check_same_documents, named_documents
  from mtjax.models.quantize import to_int8
  from mtjax.pretrained import load_pretrained
  from mtjax.report import results
  from mtjax.report.cells import Cells

  estimators = by_name(LIKELIHOOD.value, samples=_SAMPLES.value, steps=_STEPS.value)
  loaded = load_pretrained(model_name, mesh=mesh)
  network = MaskedNetwork.of(loaded.model)
  params = to_int8(loaded.params) if weights == "int8" else loaded.params
  with hosts.together("reading the texts"):
    named = named_documents(texts, loaded.tokenizer, limit=limit)
  check_same_documents(named)
  records, lines = {}, []
  settings = dict(
    model=model_name, weights=weights, text=texts, bytes=limit, length=length, context=context,
    estimators=list(estimators), samples=_SAMPLES.value, steps=_STEPS.value,
  )  # fmt: skip
  with results_file(output) as write:
    for number, (name, documents) in enumerate(named.items(), 1):
      tell = seldom(progress)
      scores = diffusion_likelihood(
        network,
        params,
        documents,
        estimators,
        start=loaded.tokenizer.bos_id,
        length=length,
        context=context,
        batch=batch,
        mesh=loaded.mesh,
        progress=lambda done, total, name=name, number=number, tell=tell: tell(
          f"scoring {name}, {number} of {len(named)}: row {done} of {total}"
        ),
      )
      for score in scores:
        error = score.error / score.nats * score.bits_per_byte
        figures = (f"{score.bits_per_byte:.3f}", f"± {error:.3f}" if error else "")
        per_token = f"{score.nats / score.tokens:.3f}"
        lines.append((name, score.estimator, score.kind, *figures, per_token, f"{score.tokens:,}"))
      records[name] = [
        dict(dataclasses.asdict(score), bits_per_byte=score.bits_per_byte) for score in scores
      ]
      write(dict(settings=settings, texts=records))
  header = ("text", "estimator", "kind", "bits per byte", "error", "nats per token", "tokens")
  table = Cells(f"{model_name}, likelihood", header, lines)
  Console(file=sys.stdout).print(table.for_terminal())
  results.write(
    results_path,
    "likelihood",
    tables=[table],
    rows=records,
    units=dict(nats="nats of the text"),
    settings=settings,
  )
