"""A handler of SIGTERM for the seconds in which a launcher still imports: import it first.

`mtjax.train` takes over when a run begins (mtjax/train/preemption.py).
"""

import os
import signal

_PREEMPTED_EXIT = 42  # mtjax.train.PREEMPTED_EXIT, whose import takes so long


def _leave(*_) -> None:
  os.write(2, b"mtjax: SIGTERM during start-up: nothing has begun, the same command starts again\n")
  os._exit(_PREEMPTED_EXIT)


signal.signal(signal.SIGTERM, _leave)
