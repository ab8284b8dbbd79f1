"""What the library does, on this machine, in a minute: python -m experiments.demo

Continues three prompts (prose, code, arithmetic) with the bundled model and prints tokens/s beside
what the machine's memory bandwidth would allow.
"""

import jax
from absl import flags
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mtjax import launch
from mtjax.native.bandwidth import measure_bandwidth
from mtjax.presets import DEMO_PROMPTS, WEIGHTS, load_pretrained, weights_for_decoding
from mtjax.text import TextModel

_MAX_TOKENS = flags.DEFINE_integer("max_tokens", 96, "Tokens per prompt.", lower_bound=1)


def run() -> None:
  console = Console(highlight=False)
  loaded = load_pretrained("target")
  table = Table("weights", "MB read per token", "tokens/s", "limit of this memory", "share")
  for weights in WEIGHTS:
    params = weights_for_decoding(loaded.params, weights)
    text = TextModel(loaded.model, params, loaded.tokenizer)
    rates = []
    for prompt in DEMO_PROMPTS:
      # Compiles for prompts of this length; the run below is timed without it.
      text.generate([prompt], max_tokens=_MAX_TOKENS.value)
      completions, generation = text.generate([prompt], max_tokens=_MAX_TOKENS.value)
      rates.append(generation.counters["tokens_per_second"])
      if weights == "stored":
        console.print(f"[bold]{escape(prompt)}[/]{escape(completions[0].text)}\n")
    rate = sorted(rates)[len(rates) // 2]
    size = bytes_per_token(params)
    limit = measure_bandwidth(size) * 1e9 / size
    table.add_row(
      weights, f"{size / 1e6:.1f}", f"{rate:,.0f}", f"{limit:,.0f}", f"{rate / limit:.0%}"
    )
  console.print(table)


def bytes_per_token(params) -> int:
  """Bytes of the weights that one token needs: all but the embedding, of which it reads a row."""
  inner = {name: value for name, value in params.items() if name != "embedding"}
  read = params if "head" not in params else inner
  return sum(leaf.nbytes for leaf in jax.tree.leaves(read))


if __name__ == "__main__":
  launch.main(run)
