r"""The bundled target: 8.3 M parameters.

python -m experiments.train --config=configs/train/bundled_target.py --workdir=runs/target \
  --config.data.sources="('file:books/train_children/*.txt.gz#header=-------;weight=0.45', \
  'file:pycode/stdlib_train.jsonl.gz#weight=0.35', 'file:gsm8k/train.jsonl.gz#weight=0.2;\
text_key=Question: {question}\nAnswer: {answer}')"

python -m experiments.export --workdir=runs/target --output=mtjax/assets/models/target \
  --dtype=bfloat16 --notokenizer

Its text is children's books, Python's standard library and GSM8K train, 4.79 M tokens; 6.55 M
tokens were seen. 2 CPU cores shared with other work: 2 h 03 min at 850 to 1,350 tokens/s (16 x 256
in float32; 8 x 512 and bfloat16 are slower). Expected: loss 3.2 (mean of the last 200 steps), bits
per byte on texts it has not seen: 1.864 on prose, 1.928 on HumanEval, 1.337 on GSM8K's test
questions (2026-11-25, by experiments/evaluate.py, whose header has the command). It is far from
done: the loss still fell.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(dim=320, layers=6, heads=10, kv_heads=2, head_dim=32, mlp_dim=960)
  config.optimizer.update(name="muon", learning_rate=3e-3, muon_learning_rate=0.02)
  config.update(batch=16, length=256, steps=1600, warmup=50, decay=500)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, heads=4, head_dim=4, mlp_dim=16)
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
