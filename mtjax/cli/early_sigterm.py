"""SIGTERM while a launcher still imports, which takes seconds: import this module first.

`mtjax.train` takes over when a run begins (mtjax/train/preemption.py).
"""

import os
import signal

_PREEMPTED_EXIT = 42  # as mtjax.train.PREEMPTED_EXIT, which is what takes so long


def _leave(*_) -> None:
  os.write(2, b"mtjax: SIGTERM during start-up: nothing has begun, the same command starts again\n")
  os._exit(_PREEMPTED_EXIT)


signal.signal(signal.SIGTERM, _leave)
