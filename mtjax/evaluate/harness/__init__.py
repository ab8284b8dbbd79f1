"""Models for lm-evaluation-harness: its requests as plain functions, and its model `mtjax`.

`import mtjax.evaluate.harness.lm_eval` registers the model; the other modules need no lm-eval.
"""
