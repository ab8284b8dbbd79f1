"""mtjax with any of its decoding methods, with the settings of configs/decode.

A call is two programs: one until the first token, and one of all rounds after it. The host takes
the time between the two; the text and the rounds are those of `generate`.
"""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtjax.bench.systems import Run, SystemText
from mtjax.decode.adaptive import Adaptive
from mtjax.decode.generation import Generation, stream
from mtjax.draft import host
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.registry.auto import wants_plan
from mtjax.registry.build import make_method
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel


def open_system(folder: str, threads: int, *, config: Mapping[str, Any]) -> Run:
  """Opens a config of configs/decode; its "target" and "draft" are the models in the folder.

  Raises ValueError for a config that asks for a plan, before anything is measured: a plan is of a
  number of rows, which is not known yet.
  """
  if config["method"] != "ar" and wants_plan(config):
    raise ValueError(
      f"method {config['method']!r} makes a plan for a number of rows, and jobs have several: give "
      "one method, or compare plans with experiments.bench.planning.auto_plan"
    )
  del threads  # XLA and the native products follow the process's affinity
  paths = {name: str(Path(folder) / name) for name in ("target", "draft")}
  config = {k: paths.get(v, v) if k in ("model", "draft_model") else v for k, v in config.items()}
  text = for_decoding(load_pretrained(config["model"]), config["weights"])
  stores = host.alive()
  decoder = _Decoder(text, config)
  return decoder if host.alive() == stores else _WithStore(text, config)


class _Decoder:
  def __init__(self, text: TextModel, config: Mapping[str, Any]):
    self._text, self._config = text, config
    self._method, self._method_params = make_method(config, text)
    if isinstance(self._method, Adaptive):
      # Measured once: what is forgotten is what was read, and not the machine.
      measured = dict(config["adaptive"], cost=self._method_params.costs.tolist())
      self._config = {**config, "adaptive": measured}

  def __call__(self, prompts, job):
    finished: list[Generation] = []
    first = Stopwatch()
    with first.running():
      pieces = stream(
        self._text.model,
        self._text.params,
        prompts,
        every=job.tokens,  # no text has more rounds
        on_finish=finished.append,
        method=self._method,
        method_params=self._method_params,
        max_tokens=job.tokens,
        sampling=Sampling(temperature=job.temperature),
        key=job.seed,
        eos=job.ends,
      )
      first_tokens = sum(map(len, next(pieces)))
    for _ in pieces:
      pass
    (out,) = finished
    counters = dict(out.counters)
    forwards = counters.pop("target_forwards")
    return SystemText(out.tokens, forwards, counters, first.seconds, first_tokens)


class _WithStore(_Decoder):
  """A run that forgets: a host drafter learns into its store, which its parameters name."""

  def forget(self):
    _, self._method_params = make_method(self._config, self._text)
    # Earlier stores stay alive; they must not slow down later passes.
    gc.collect()
    gc.freeze()
