r"""How many tokens prompt lookup should draft, on two kinds of text.

python -m experiments.sweep --config=configs/sweep/lookup_lengths.py --results=runs/lookup_lengths

One CPU core: 100 s. Expected: from 1 to 16 drafts, 1.23 to 1.52 tokens per forward pass on code and
1.39 to 2.37 on prose; on code it was slowest with 16 drafts (2026-11-28).
"""

from ml_collections import ConfigDict

from mtjax.cli.sweep.combinations import product
from mtjax.registry.configs import decode_config

PROGRAM = "decode"
PROMPTS = ["def add(a, b):", "The old clock struck nine, and"]


def get_config() -> ConfigDict:
  config = decode_config("lookup")
  config.max_tokens = 64
  return config


def sweep() -> list[dict[str, int | str]]:
  return product({"config.drafter.length": [1, 2, 4, 8, 16], "prompt": PROMPTS})
