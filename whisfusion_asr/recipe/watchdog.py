"""Kills the runner's children when the runner is gone, also after `kill -9`, which leaves no time to clean up.

An orphan would go on writing the files that the next run writes too. The runner holds the other end of standard input
and reports each group of processes as `+PID` when it starts and `-PID` when it ends; at end of file the rest is killed.
"""

import os
import signal
import sys


def main() -> None:
    """Read reports until the runner is gone, then kill what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        groups.add(group) if line[0] == "+" else groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
