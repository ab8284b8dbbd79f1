"""The table of methods of denoising beside each other."""

from collections.abc import Sequence

from mtjax.bench.diffusion.methods import DenoisingResult
from mtjax.report.cells import Cells


def methods_table(model: str, measured: Sequence[DenoisingResult]) -> Cells:
  """Returns tokens per forward, quality and time of what `mtjax.bench.diffusion.methods` measured.

  The quality of a method is beside that of its reference, one token per pass of the same model.
  """
  by_name = {one.case.name: one for one in measured}
  batches = list(measured[0].seconds)
  lines = []
  for one in measured:
    reference = by_name[one.case.reference]
    lines.append(
      (
        one.case.name,
        one.case.cache,
        f"{one.tokens_per_forward:.2f}",
        f"{one.quality.bits_per_byte:.3f} ± {one.error:.3f}",
        f"{one.quality.entropy:.2f}",
        "-" if one is reference else "yes" if one.keeps(reference) else "no",
        *(f"{1e3 * one.seconds[b]:.1f} ms ({one.speed_up[b]:.2f}x)" for b in batches),
      )
    )
  header = ("method", "cache", "tokens per forward", "judge's bits per byte", "entropy")
  times = (f"per token, batch {batch}" for batch in batches)
  title = f"{model}; in brackets the speed over one token per pass"
  return Cells(title, (*header, "as good as one per pass", *times), lines)
