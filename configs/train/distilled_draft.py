r"""The bundled draft, taught by the bundled target: sequence-level distillation (1606.07947).

In the folder of the texts, with a source of 8,192 texts of 256 tokens that the target wrote:

python -m experiments.write_texts --texts=8192 --output=written.jsonl \
  --sources='file:books/train_children/*.txt.gz#header=-------;weight=0.4' \
  --sources='file:pycode/stdlib_train.jsonl.gz#weight=0.4' \
  --sources='file:gsm8k/train.jsonl.gz#weight=0.2;text_key=Question: {question}\nAnswer: {answer}'

python -m experiments.train --config=configs/train/distilled_draft.py --workdir=runs/distilled \
  --config.data.sources="('file:written.jsonl',)"
"""

from ml_collections import ConfigDict

from configs.train import bundled_draft


def get_config() -> ConfigDict:
  config = bundled_draft.get_config()
  config.init = "draft"
  config.optimizer.update(learning_rate=3e-3, muon_learning_rate=0.01)
  config.update(steps=2000, warmup=20, decay=1200)
  return config


def tiny() -> ConfigDict:
  config = bundled_draft.tiny()
  config.optimizer.update(learning_rate=3e-3, muon_learning_rate=0.01)
  return config
