"""Tokens per forward of retrieval drafters on given text, without a model.

    python -m experiments.bench.replay

--text is name=source (see mtjax.data.sources), several times. Of --count documents the first
half is the prompt and what follows is what a target would write; the others warm the stores. A
target that writes other text than these accepts less, or more where it repeats itself.

Four public sets (DATA is the developer data set):

python -m experiments.bench.replay \
  --text="toolcall=file:DATA/toolcall/*.jsonl.gz#text_key={tools}{conversations}" \
  --text="pycode=file:DATA/pycode/*.jsonl.gz#text_key={text}" \
  --text="specbench=file:DATA/specbench/*.jsonl.gz#text_key={turns}" \
  --text="gsm8k=file:DATA/gsm8k/test_dev.jsonl.gz#text_key=Question: {question}\nAnswer: {answer}"
"""

import sys

from absl import flags
from rich.console import Console

from mtjax.cli import flags as launch
from mtjax.cli.running import progress, results_file

_TEXT = flags.DEFINE_multi_string("text", [], "name=source; may be given several times.")
_TOKENIZER = flags.DEFINE_string("tokenizer", "target", "Bundled model, folder or hub id.")
_COUNT = flags.DEFINE_integer("count", 16, "Documents to replay.", lower_bound=1)
_PROMPT = flags.DEFINE_integer("prompt_tokens", 256, "Of a prompt, at most.", lower_bound=1)
_TOKENS = flags.DEFINE_integer("tokens", 128, "Of a continuation, at most.", lower_bound=1)
_SIZES = flags.DEFINE_list("sizes", ["5", "8", "16"], "Nodes of a tree, the root among them.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the figures.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def run() -> None:
  if not _TEXT.value:
    raise ValueError('--text is missing, for example --text="code=file:*.jsonl#text_key=text"')
  launch.check_output(_OUTPUT, _RESULTS, inputs=[_TEXT])
  sizes = [int(size) for size in _SIZES.value]
  # Imported here: a mistake in the command is answered at once.
  from mtjax.bench.replay import compare, split
  from mtjax.evaluate.texts import named_documents
  from mtjax.pretrained import load_pretrained
  from mtjax.report import results
  from mtjax.report.speed_tables import Cells

  tokenizer = load_pretrained(_TOKENIZER.value).tokenizer
  rows: dict[str, dict[str, list[float]]] = {}
  named = named_documents(_TEXT.value, tokenizer)
  with results_file(_OUTPUT.value) as write:
    for number, (name, documents) in enumerate(named.items(), 1):
      progress(f"replaying {name}, {number} of {len(named)}")
      pairs, others = split(
        [tokens for tokens, _ in documents],
        _COUNT.value,
        prompt=_PROMPT.value,
        tokens=_TOKENS.value,
      )
      found = rows.setdefault(name, {})
      for size in sizes:
        for drafter, rate in compare(pairs, others, size=size, vocab_size=tokenizer.vocab_size):
          progress(f"{name}, {size} nodes: {drafter} {rate:.2f}")
          found.setdefault(drafter, []).append(rate)
      write(dict(sizes=sizes, tokens_per_forward=rows))
  lines = [
    (name, drafter, *(f"{rate:.2f}" for rate in rates))
    for name, found in rows.items()
    for drafter, rates in found.items()
  ]
  header = ("text", "drafter", *(f"{size} nodes" for size in sizes))
  table = Cells("Tokens per forward pass", header, lines)
  Console(file=sys.stdout).print(table.for_terminal())
  results.write(
    _RESULTS.value,
    "replay",
    tables=[table],
    rows=dict(sizes=sizes, tokens_per_forward=rows),
    settings=launch.settings(__name__),
    units=dict(tokens_per_forward="tokens per forward pass"),
  )


if __name__ == "__main__":
  launch.main(run)
