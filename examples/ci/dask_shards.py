"""Runs the shards of a suite as tasks of a Dask cluster, and merges what they found.

usage: dask_shards.py SHARDS [OUT]

With DASK_SCHEDULER_ADDRESS it uses that cluster, whose workers see the same directory; without it,
a cluster on this machine.
"""

import os
import subprocess
import sys

from distributed import Client, LocalCluster

QUALM = os.environ.get("QUALM", "qualm")


def run_shard(index, total, out):
    command = [QUALM, "run", "--shard", f"{index}/{total}", "--out-dir", out]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode


def main():
    total = int(sys.argv[1])
    out = sys.argv[2] if len(sys.argv) > 2 else "target/qualm"
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    cluster = address or LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as client:
        # A metric is the same every time; a worker that is lost is worth another try.
        indices = range(1, total + 1)
        futures = [client.submit(run_shard, i, total, out, pure=False, retries=1) for i in indices]
        print("exit codes:", client.gather(futures))
    # The merge says what the whole came to, and refuses if a shard left nothing.
    sys.exit(subprocess.run([QUALM, "merge", out, "--out-dir", out]).returncode)


if __name__ == "__main__":
    main()
