"""mtjax with a method of denoising."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtjax.bench.systems import Run, SystemText
from mtjax.diffusion.denoising import denoise
from mtjax.diffusion.texts import network_of
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.registry.denoising.methods import denoiser
from mtjax.sampling.logits import Sampling

MASKED = "masked"  # the name of the folder's masked model


def open_system(
  folder: str, threads: int, *, method: str, settings: Mapping[str, Any], weights: str = "stored"
) -> Run:
  """Opens the folder's masked model; `method` and its settings are those of `mtjax.denoiser`."""
  del threads  # XLA and the native products follow the process's affinity
  text = for_decoding(load_pretrained(str(Path(folder) / MASKED)), weights)
  network = network_of(text)

  def run(prompts, job):
    one = denoiser(method, **{**settings, "length": job.tokens})
    out = denoise(
      network,
      text.params,
      prompts,
      plan=one.plan(network),
      policy=one.policy,
      cache=one.caching,
      guidance=one.guiding,
      filtered_confidence=one.filtered_confidence,
      sampling=Sampling(temperature=job.temperature),
      key=job.seed,
      eos=job.ends,
    )
    counters = dict(out.counters)
    return SystemText(out.tokens, counters.pop("forwards"), counters)

  return run
