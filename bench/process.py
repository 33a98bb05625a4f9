"""A process of a benchmark, measured from outside; Python's standard library alone."""

import os
import subprocess
import sys
import time


class Once:
    """One process from outside: seconds of wall and CPU time, and peak memory in MiB."""

    def __init__(self, command, may_fail=False):
        begun = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        error = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        self.wall = time.perf_counter() - begun
        self.cpu = usage.ru_utime + usage.ru_stime
        self.mib = usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
        # 5: diff and check found the pair too different, which is no matter here.
        child.returncode = os.waitstatus_to_exitcode(status)
        self.code = child.returncode
        self.failed = self.code not in (0, 5)
        if self.failed and not may_fail:
            sys.exit(f"{command} ended with {child.returncode}: {error.decode()}")
