"""Measures tokens per forward of retrieval drafters on existing text, without a model.

    python -m experiments.bench.replay

--text is name=source (see mtjax.data.sources) and may be repeated. Of each of --count documents the
first half is the prompt, and the rest is what a target would write; the other documents warm the
stores. A target that writes other text accepts less, or more where it repeats itself.

This command measures four public sets (DATA is the developer data set):

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

_TEXT = flags.DEFINE_multi_string("text", [], "Text to replay, as name=source; may be repeated.")
_TOKENIZER = flags.DEFINE_string(
  "tokenizer",
  "target",
  "Model whose tokenizer is used: a bundled one, a folder or a Hugging Face id.",
)
_COUNT = flags.DEFINE_integer("count", 16, "Number of documents to replay per text.", lower_bound=1)
_PROMPT = flags.DEFINE_integer(
  "prompt_tokens", 256, "Maximum number of tokens per prompt.", lower_bound=1
)
_TOKENS = flags.DEFINE_integer(
  "tokens", 128, "Maximum number of tokens per continuation.", lower_bound=1
)
_SIZES = flags.DEFINE_list(
  "sizes", ["5", "8", "16"], "Numbers of nodes per tree, including the root."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the figures to.")
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
  from mtjax.report.cells import Cells

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
      rates_of = rows.setdefault(name, {})
      for size in sizes:
        for drafter, rate in compare(pairs, others, size=size, vocab_size=tokenizer.vocab_size):
          progress(f"{name}, {size} nodes: {drafter} {rate:.2f}")
          rates_of.setdefault(drafter, []).append(rate)
      write(dict(sizes=sizes, tokens_per_forward=rows))
  lines = [
    (name, drafter, *(f"{rate:.2f}" for rate in rates))
    for name, rates_of in rows.items()
    for drafter, rates in rates_of.items()
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
