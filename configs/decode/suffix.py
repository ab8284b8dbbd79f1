"""Suffix counts (as in SuffixDecoding, 2411.04975) on the bundled target.

python -m experiments.decode --config=configs/decode/suffix.py --prompt="def add(a, b):"
python -m experiments.decode --config=configs/decode/suffix.py --config.drafter.store=file.npz ...

It retrieves from the same counts as configs/decode/trie.py, by probability instead of frequency,
for about twice the time on the host. Tokens per forward beside the trie's, 8 nodes: 0 to 3 % more
on what the bundled target writes (specbench, pycode, toolcall; max_query, output_weight and escape
were chosen on some of the same prompts), 1 % fewer to 4 % more on existing text
(experiments/bench/replay.py). These figures are older than the trie's capacities per first token.
The text is the same as that of configs/decode/ar.py with the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.Trie (size, depth), of mtjax.draft.SuffixSettings, and the store's file.
  # tree_nodes: the approximate number of n-grams kept per first token. max_total: the number kept
  # in all when a request ends, 300 to 400 bytes each. store: a file, which several runs may share;
  # "": a store that ends with the process.
  return decode_config("suffix")
