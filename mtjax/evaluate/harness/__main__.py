"""The commands of lm-evaluation-harness, with the model `mtjax` among its models.

python -m mtjax.evaluate.harness run --model mtjax \
  --model_args pretrained=smollm2,method=lookup --tasks gsm8k --apply_chat_template
"""

import sys


def entry() -> None:
  """Runs lm-eval's own command line. Exits with a sentence that names the extra without lm-eval."""
  try:
    from mtjax.evaluate.harness import lm_eval  # noqa: F401 - importing it registers the model
  except ImportError as error:
    sys.exit(f"mtjax: {error}")
  from lm_eval.__main__ import cli_evaluate

  cli_evaluate()


if __name__ == "__main__":
  entry()
