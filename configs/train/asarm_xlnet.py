r"""AS-ARM (2504.20456): xlnet-base-cased, 117 M parameters, fine-tuned to fill blanks of any kind.

python -m experiments.train --config=configs/train/asarm_xlnet.py --workdir=runs/asarm \
  --config.data.sources="('file:openwebtext/*.jsonl.gz',)"
python -m experiments.export --workdir=runs/asarm --output=models/asarm
python -m experiments.evaluate --model=models/asarm --orders=lattice --rate=0.95 \
  --text="wikitext=file:wikitext2/test.txt.gz"

Needs mtjax[hf] for the weights and the tokenizer, or a folder of both in --config.init and
--config.data.tokenizer. --config=configs/train/asarm_xlnet.py:NAME selects another of the runs that
the authors' scripts have (github.com/gabeguo/any-order-speculative-decoding, 83a444d):

  language      OpenWebText, rates .15 to [.85, .99] in 5,000 steps; 32 rows per update
  code          the same on Python code
  stories       sentences of stories, .15 to [.60, .75] in 2,500 steps; 256 rows
  single_line   single lines of code, .01 to [.05, .25] in 2,500 steps; 256 rows
  continued     goes on from `language` in models/asarm, rates of [.90, .99]; 384 rows
  tiny          random weights, 28,000 parameters, on the bytes of Shakespeare, offline

AdamW at 1e-5 for each 32 rows of an update, linear warm-up and decay, gradients clipped to 1, rows
of 512 tokens, float32. The rates of an update are stratified over its rows, on all devices and in
all parts; the authors have one rate for all rows that a device computes at once. What else differs
from their code: no dropout (theirs is .1); weights decay in matrices and tables only; documents of
a row do not see each other, and end tokens are no targets; the mean is over target tokens, theirs
over rows. Their code texts have line breaks, tabs and runs of spaces rewritten as special tokens,
as XLNet's tokenizer loses them; here `code` and `single_line` learn without.

Not run here: a few days on A100s, the authors say. Expected, for their weights (WikiText-2, 95 % of
512 tokens are targets): perplexity 107.9 under GPT-2 large at an entropy of 7.65 bits, in 486
forward passes one by one and 434 by self-drafts of 5. ROCStories, 3 of 5 sentences, `stories`:
ROUGE-1 18.0. HumanEval, single lines, in their code model: 38.6 % pass. No loss is published. A
part of 8 rows takes about 25 GB of activations as XLA plans it; --config.model.remat=layer
recomputes most of them. `tiny` was run: 2 CPU cores shared with other work, 1 min. Expected: a loss
that falls from 5.58 to 2.47 nats per target token (mean of the last 10 steps, 2026-11-28), where
the frequencies of bytes alone give 3.31.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults, xlnet_model
from mtjax.train.losses.registry import objective_settings

_LANGUAGE = dict(start=0.15, end=(0.85, 0.99), warmup=5000, rows=32, parts=4, texts=24_000_000)
_RUNS = {
  "language": _LANGUAGE,
  "code": _LANGUAGE,
  "stories": dict(
    start=0.15, end=(0.6, 0.75), warmup=2500, rows=256, parts=8, texts=120_000_000
  ),
  "single_line": dict(
    start=0.01, end=(0.05, 0.25), warmup=2500, rows=256, parts=8, texts=120_000_000
  ),
  "continued": dict(
    start=0.9, end=(0.9, 0.99), warmup=5000, rows=384, parts=12, texts=120_000_000,
    init="models/asarm",
  ),
}  # fmt: skip


def get_config(run: str = "language") -> ConfigDict:
  if run == "tiny":
    return tiny()
  if run not in _RUNS:
    raise ValueError(f"there is no run {run!r} of AS-ARM, only {', '.join(_RUNS)} and tiny")
  config, its = defaults(), _RUNS[run]
  config.model = xlnet_model()
  config.update(init=its.get("init", "xlnet-base-cased"), objective="any_subset")
  config.data.tokenizer = "xlnet-base-cased"
  config.any_subset = objective_settings(
    "any_subset", start=(its["start"],) * 2, end=its["end"], warmup=its["warmup"]
  )
  config.optimizer.update(name="adamw", learning_rate=1e-5 * its["rows"] / 32, b2=0.999)
  steps, warmup = its["texts"] // its["rows"], its["warmup"]
  config.update(batch=its["rows"], accumulate=its["parts"], length=512)
  config.update(steps=steps, warmup=warmup, decay=steps - warmup, save_every=2500)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(
    vocab_size=258, dim=32, layers=2, heads=2, head_dim=16, mlp_dim=64, max_position=32
  )
  config.data.update(sources=("builtin:tinyshakespeare",), tokenizer="bytes")
  config.any_subset.warmup = 20
  config.optimizer.learning_rate = 3e-3
  config.update(init="", batch=8, accumulate=2, length=32, log_every=1)
  config.update(steps=400, warmup=8, decay=392, save_every=100)
  return config
