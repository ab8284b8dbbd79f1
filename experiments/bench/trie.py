"""The gain of Lookahead's trie from earlier requests (2312.12728): python -m experiments.bench.trie

Measures tokens per forward of texts that the store does not learn, after 0, 1,000, ... warm-up
requests, for the three retrievals of the paper (hier, par, one). DATA, the developer data set, has
these sets:

  gsm8k  questions and their reference answers; measured on test questions
  e2e    records and their reference sentences; measured on validation records
  rag    greedy outputs of the bundled target: warm-up on passages of Wikipedia, measured on the
         retrieval subset of Spec-Bench. --outputs saves what it wrote; the same command continues.

python -m experiments.bench.trie --data=DATA --sets=e2e --results=results/trie_e2e.json

docs/benchmarks.md shows the results, docs/guides/benchmarks.md the command of every set. They count
forward passes and time nothing, so that they do not depend on the machine.
"""

import sys
from pathlib import Path

from absl import flags
from rich.console import Console

from mtjax.bench import trie_requests
from mtjax.bench.trie_warmup import curves
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.draft import TrieSettings, TrieStore
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.report import results, trie_warmup

_DATA = flags.DEFINE_string("data", None, "Folder of the developer data set.")
_SETS = flags.DEFINE_list("sets", ["gsm8k", "e2e", "rag"], "Sets to measure.")
_RETRIEVALS = flags.DEFINE_list("retrievals", ["hier", "par", "one"], "Retrievals to measure.")
_AT = flags.DEFINE_list(
  "at", ["0", "250", "1000", "2000", "3900"], "Numbers of warm-up requests to measure after."
)
_TESTS = flags.DEFINE_integer("tests", 100, "Number of texts to measure per set.", lower_bound=1)
_SIZE = flags.DEFINE_integer(
  "size", 8, "Number of nodes per tree, including the root.", lower_bound=2
)
_TREE_NODES = flags.DEFINE_integer(
  "tree_nodes", 4096, "Number of n-grams that the store keeps per first token.", lower_bound=1
)
_MAX_TOTAL = flags.DEFINE_integer(
  "max_total", 2**20, "Number of n-grams that the store keeps in all.", lower_bound=1
)
_PROMPT = flags.DEFINE_integer(
  "prompt_tokens", 256, "Maximum number of tokens per prompt.", lower_bound=1
)
_TOKENS = flags.DEFINE_integer("tokens", 128, "Maximum number of tokens per output.", lower_bound=1)
_WRITTEN = flags.DEFINE_integer(
  "written", 64, "Number of tokens that the target writes per prompt (set rag).", lower_bound=1
)
_BATCH = flags.DEFINE_integer(
  "batch", 128, "Number of outputs that the target writes at once (set rag).", lower_bound=1
)
_OUTPUTS = flags.DEFINE_string("outputs", None, "Folder for what the target writes (set rag).")
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def read(name: str, text) -> tuple[list, list]:
  """Returns the warm-up requests and the measured ones, as (prompt, output)."""
  data = Path(_DATA.value)
  if name == "gsm8k":
    files, fields = ("train.jsonl.gz", "test_dev.jsonl.gz"), ("question", "answer")
  elif name == "e2e":
    files, fields = ("train.jsonl.gz", "valid.jsonl.gz"), ("mr", "ref")
  elif name == "rag":
    return write(data, text)
  else:
    raise ValueError(f"--sets knows gsm8k, e2e and rag, got {name!r}")
  warm, tests = (trie_requests.answered(data / name / file, *fields) for file in files)
  return warm, tests


def write(data: Path, text) -> tuple[list, list]:
  folder = Path(launch.required(_OUTPUTS, "outputs"))
  folder.mkdir(parents=True, exist_ok=True)
  settings = dict(max_tokens=_WRITTEN.value, eos=())

  def outputs(prompts):
    rows = [text.tokenizer.encode(prompt)[-_PROMPT.value :] for prompt in prompts]
    return [completion.text for completion in text.generate(rows, **settings)[0]]

  warm = trie_requests.passages(data / "wikidemo" / "articles.jsonl.gz")[: int(_AT.value[-1])]
  tests = trie_requests.retrieved(data / "specbench" / "question.jsonl.gz")
  return tuple(
    list(trie_requests.recorded(folder / f"{name}.jsonl", prompts, _BATCH.value, outputs))
    for name, prompts in (("passages", warm), ("rag", tests))
  )


def publish(figures: dict, tables: list, *, complete: bool) -> None:
  results.write(
    _RESULTS.value,
    "trie",
    tables=tables,
    rows=figures,
    settings=launch.settings(__name__),
    units=dict(tokens_per_forward="tokens per forward pass"),
    complete=complete,
  )


def run() -> None:
  launch.required(_DATA, "DATA")
  launch.check_output(_RESULTS)
  at = [int(count) for count in _AT.value]
  text = for_decoding(load_pretrained("target"), "float32")
  encode, figures, tables = text.tokenizer.encode, {}, []
  console = Console(file=sys.stdout)
  for number, name in enumerate(_SETS.value, 1):
    progress(f"replaying {name}, {number} of {len(_SETS.value)}")
    warm, tests = read(name, text)
    outputs = [encode(output)[: _TOKENS.value] for _, output in warm]
    pairs = [
      (encode(prompt)[-_PROMPT.value :], encode(output)[: _TOKENS.value])
      for prompt, output in tests[: _TESTS.value]
    ]
    fields = dict(tree_nodes=_TREE_NODES.value, max_total=_MAX_TOTAL.value)
    stores = [
      TrieStore(text.tokenizer.vocab_size, settings=TrieSettings(retrieval=retrieval, **fields))
      for retrieval in _RETRIEVALS.value
    ]
    points_of = curves(stores, outputs, pairs, at, size=_SIZE.value)
    figures[name] = {
      retrieval: trie_warmup.curve_row(points)
      for retrieval, points in zip(_RETRIEVALS.value, points_of, strict=True)
    }
    tables.append(trie_warmup.warmup_table(figures[name], f"{name}, {len(pairs)} texts measured"))
    console.print(tables[-1].for_terminal())
    publish(figures, tables, complete=number == len(_SETS.value))


if __name__ == "__main__":
  launch.main(run)
