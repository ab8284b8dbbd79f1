r"""The bundled draft: sequence-level distillation (1606.07947) of the bundled target.

It continues the training of bundled_draft.py with 8,192 texts of 256 tokens that the target wrote,
half of them greedily, from beginnings of the texts that both were trained on:

python -m experiments.write_texts --texts=8192 --output=written.jsonl \
  --sources='file:books/train_children/*.txt.gz#header=-------;weight=0.4' \
  --sources='file:pycode/stdlib_train.jsonl.gz#weight=0.4' \
  --sources='file:gsm8k/train.jsonl.gz#weight=0.2;text_key=Question: {question}\nAnswer: {answer}'

python -m experiments.train --config=configs/train/distilled_draft.py --workdir=runs/distilled \
  --config.init=runs/draft_export --config.data.sources="('file:written.jsonl',)"

python -m experiments.export --workdir=runs/distilled --output=mtjax/assets/models/draft \
  --dtype=bfloat16 --notokenizer

12 min to write on 2 CPU cores, 11 min to train on one (6,300 tokens/s, 4.1 M tokens: the texts
twice). Expected: loss 2.67 (mean of the last 200 steps), bits per byte on texts it has not seen:
2.205 on prose, 2.191 on HumanEval, 1.691 on GSM8K's test questions; before, 2.066, 2.211 and 1.632.
It predicts people less well and the target better: chains of 3 keep 2.7 tokens per forward instead
of 2.1 on the prompts of docs/benchmarks.md (2026-11-25).
"""

from ml_collections import ConfigDict

from configs.train import bundled_draft


def get_config() -> ConfigDict:
  config = bundled_draft.get_config()
  config.optimizer.update(learning_rate=3e-3, muon_learning_rate=0.01)
  config.update(steps=2000, warmup=20, decay=1200)
  return config


def tiny() -> ConfigDict:
  config = bundled_draft.tiny()
  config.optimizer.update(learning_rate=3e-3, muon_learning_rate=0.01)
  return config
