"""The longest times that processes wait for each other, unless flags say otherwise."""

HEARTBEAT_SECONDS = 30  # a process that is silent for so long is lost
WAIT_SECONDS = 120  # until all processes have started
