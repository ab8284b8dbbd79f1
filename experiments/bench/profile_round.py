"""Profiles the time of a speculative round: python -m experiments.bench.profile_round

python -m experiments.bench.profile_round --methods=lookup,trie --nodes=32 --output=run.json
python -m experiments.bench.profile_round --vocab=131072 --dim=1024 --layers=8 --methods=lookup

Profiles the bundled target with 32 nodes per round, or a target of random weights. "outside" is the
share of the round that neither network takes, measured three times: by difference to each network
by itself, by difference to drafter and target in turn, and as the sum of its parts, each timed
alone. A method is NAME or NAME:field=value:...; the tree gets --nodes nodes if the drafter allows
it.
"""

import dataclasses
import sys
import tempfile
import time

import jax
from absl import flags
from rich.console import Console

from mtjax import checkpoints
from mtjax.bench.profile import profile_round, with_nodes
from mtjax.cli import flags as launch
from mtjax.cli.method_names import config_of
from mtjax.cli.running import progress, results_file
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.pretrained import DEMO_PROMPTS, for_decoding, load_pretrained
from mtjax.registry.auto import wants_plan
from mtjax.registry.build import make_method
from mtjax.report import results
from mtjax.report.speed.tables import profile_table
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

CLOCKS = dict(wall=time.perf_counter, cpu=time.process_time)

_METHODS = flags.DEFINE_list(
  "methods", ["lookup", "trie", "draft", "draft_tree"], "Methods to profile."
)
_NODES = flags.DEFINE_integer(
  "nodes", 32, "Number of nodes per tree; 0: the drafter's own number.", 0
)
_MODEL = flags.DEFINE_string(
  "model", "target", "Target model: a bundled one, a folder or a Hugging Face id."
)
_VOCAB = flags.DEFINE_integer(
  "vocab", 0, "Profile a target of random weights with a vocabulary of this size; 0: --model.", 0
)
_DIM = flags.DEFINE_integer(
  "dim", 1024, "Width of the target with random weights.", lower_bound=256
)
_LAYERS = flags.DEFINE_integer(
  "layers", 8, "Number of layers of the target with random weights.", lower_bound=1
)
_WEIGHTS = flags.DEFINE_string("weights", "stored", "Weights of the target: stored or int8.")
_TEMPERATURES = flags.DEFINE_list(
  "temperatures", ["0", "1"], "Temperatures to profile at; 0 is greedy."
)
_REPEATS = flags.DEFINE_integer(
  "repeats", 7, "Number of repeats of each time; the least one counts.", 1
)
_CLOCK = flags.DEFINE_enum(
  "clock", "wall", list(CLOCKS), "Clock: wall time, or cpu time for a busy machine and one thread."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write all figures to.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def random_model(dim: int, layers: int) -> TextModel:
  heads = dict(heads=dim // 64, kv_heads=1, head_dim=64, mlp_dim=3 * dim)
  config = TransformerConfig(_VOCAB.value, dim=dim, layers=uniform_layers(layers), **heads)
  return TextModel(Model(config), Model(config).init(jax.random.key(0)), BpeTokenizer.bundled())


def target() -> TextModel:
  if _VOCAB.value:
    text = random_model(_DIM.value, _LAYERS.value)
  else:
    text = load_pretrained(_MODEL.value)
  return for_decoding(text, _WEIGHTS.value)


def run() -> None:
  launch.check_output(_OUTPUT, _RESULTS)
  configs = {name: config_of(name) for name in _METHODS.value}
  if planned := [name for name, config in configs.items() if wants_plan(config)]:
    raise ValueError(f"--methods={planned[0]} makes a plan, whose rounds differ: name one method")
  temperatures = [float(value) for value in _TEMPERATURES.value]
  console = Console(width=None if sys.stdout.isatty() else 170)
  profiles = {}
  with tempfile.TemporaryDirectory() as folder, results_file(_OUTPUT.value) as write:
    text = target()
    if _VOCAB.value:
      draft = random_model(_DIM.value // 4, layers=2)
      checkpoints.save(folder, draft.model, draft.params, tokenizer=draft.tokenizer)
    for number, (name, config) in enumerate(configs.items(), 1):
      if _VOCAB.value and "draft_model" in config:
        config["draft_model"] = folder
      method, params = make_method(config, text)
      if _NODES.value:
        method = with_nodes(text.model, method, params, _NODES.value)
      for temperature in temperatures:
        label = f"{name}, T = {temperature:g}"
        where = f"{label}, {number} of {len(configs)}"
        profiles[label] = profile_round(
          text.model,
          text.params,
          method,
          params,
          text.tokenizer.encode(DEMO_PROMPTS[1]),
          sampling=Sampling(temperature=temperature),
          repeats=_REPEATS.value,
          clock=CLOCKS[_CLOCK.value],
          progress=lambda what, where=where: progress(f"{where}: {what}"),
        )
        write(dict(profiles={name: dataclasses.asdict(one) for name, one in profiles.items()}))
  console.print(profile_table(profiles).for_terminal())
  rows = {name: dataclasses.asdict(profile) for name, profile in profiles.items()}
  results.write(
    _RESULTS.value,
    "profile_round",
    tables=[profile_table(profiles)],
    rows=rows,
    settings=launch.settings(__name__),
    units=dict.fromkeys(("round", "target", "draft", "in_turn", "parts"), "s"),
    rounds=_REPEATS.value,
  )


if __name__ == "__main__":
  launch.main(run)
