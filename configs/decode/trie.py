"""Lookahead's trie (2312.12728) on the bundled target: drafts are earlier continuations.

python -m experiments.decode --config=configs/decode/trie.py --prompt="def add(a, b):"
python -m experiments.decode --config=configs/decode/trie.py --config.drafter.store=trie.npz ...

The trie holds the prompt and the output of a request, and the outputs of all earlier ones. The
second command begins with the contents of trie.npz, if it exists, and adds its own. Runs at the
same time may share that file: each adds its own to what the others saved, and nothing is lost. The
text is the same as that of configs/decode/ar.py with the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.Trie (size, depth), of mtjax.draft.TrieSettings, and the store's file.
  # retrieval: "hier", or "par" and "one", the paper's other two, to compare with. tree_nodes: the
  # approximate number of n-grams kept per first token. max_total: the number kept in all when a
  # request ends, 300 to 400 bytes each. store: a file, which several runs may share; "": a store
  # that ends with the process.
  return decode_config("trie")
