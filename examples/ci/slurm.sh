#!/usr/bin/env bash
# Submits the suite as an array of shards, and a job that merges whatever became of them.
# usage: slurm.sh SHARDS [OUT]   (OUT is a directory that all nodes share)
set -euo pipefail
shards=$1
out=${2:-target/qualm}
qualm=${QUALM:-qualm}
# Blobs of a run with another number of shards would be foreign to this one.
rm -f "$out"/blob-*.json
array=$(sbatch --parsable --job-name qualm --array "1-$shards" \
  --output "$out/slurm-%a.log" \
  --wrap "$qualm run --shard-from-env --out-dir '$out'")
# afterany, not afterok: a shard that fails has something to report.
merge=$(sbatch --parsable --job-name qualm-merge --dependency "afterany:$array" \
  --output "$out/slurm-merge.log" \
  --wrap "$qualm merge '$out' --out-dir '$out'")
echo "shards: job $array; merge: job $merge, whose exit code is the answer"
