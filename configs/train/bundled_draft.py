r"""The model that the bundled draft starts from (distilled_draft.py): 0.92 M parameters.

python -m experiments.train --config=configs/train/bundled_draft.py --workdir=runs/draft \
  --config.data.sources="('file:books/train_children/*.txt.gz#header=-------;weight=0.45', \
  'file:pycode/stdlib_train.jsonl.gz#weight=0.35', 'file:gsm8k/train.jsonl.gz#weight=0.2;\
text_key=Question: {question}\nAnswer: {answer}')"

python -m experiments.export --workdir=runs/draft --output=runs/draft_export --dtype=bfloat16

The target's text: children's books, Python's standard library and GSM8K train, 4.79 M tokens; 3.69
M tokens were seen. One CPU
core: 14 min at 4,600 tokens/s. Expected: loss 3.72 (mean of the last 200 steps), bits per byte on
texts it has not seen: 2.066 on prose, 2.211 on HumanEval, 1.632 on GSM8K's test questions
(2026-11-25, by experiments/evaluate.py, whose header has the command).
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(dim=128, layers=2, heads=4, kv_heads=2, head_dim=32, mlp_dim=384)
  config.optimizer.update(name="muon", learning_rate=5e-3, muon_learning_rate=0.02)
  config.update(batch=8, length=256, steps=1800, warmup=50, decay=600)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, head_dim=4, mlp_dim=16)
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
