#!/usr/bin/env bash
# examples/ci/slurm.sh on a real Slurm of one node. Debian's packages are unpacked, not installed;
# needs apt-get, and root for slurmd. Not part of CI.
# usage: slurm.sh QUALM   (the binary)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export QUALM
QUALM=$(realpath "$1")
work=$(mktemp -d)
cd "$work"
apt-get download -qq slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 \
  libhwloc15 liblz4-1 libnuma1 libjson-c5 liblua5.1-0 libyaml-0-2 libdbus-1-3 libpam0g 2> /dev/null
for package in *.deb; do dpkg-deb -x "$package" root; done
lib=$work/root/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH=$lib:$work/root/lib/x86_64-linux-gnu:$lib/slurm-wlm
export PATH=$work/root/usr/bin:$work/root/usr/sbin:$PATH
export SLURM_CONF=$work/slurm.conf
mkdir -p state spool munge && chmod 755 "$work" && chmod 700 munge
head -c 128 /dev/urandom > munge/key && chmod 400 munge/key
munged --force --key-file="$work/munge/key" --socket="$work/munge/socket" \
  --pid-file="$work/munge/pid" --log-file="$work/munge/log" --seed-file="$work/munge/seed"
host=$(hostname -s)
cat > slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CryptoType=crypto/munge
SlurmUser=root
SlurmctldPort=36817
SlurmdPort=36818
PluginDir=$lib/slurm-wlm
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES State=UP MaxTime=INFINITE
CONF
slurmctld-wlm -f "$SLURM_CONF"
slurmd-wlm -f "$SLURM_CONF" -d "$work/root/usr/sbin/slurmstepd-wlm"
stop() {
  for pid in "$work"/slurmd.pid "$work"/slurmctld.pid "$work"/munge/pid; do
    if [ -s "$pid" ]; then kill "$(cat "$pid")" || true; fi
  done
}
trap stop EXIT
for _ in $(seq 30); do
  if sinfo -h -o %t 2> /dev/null | grep -qE 'idle|mix|alloc'; then break; fi
  sleep 1
done
sinfo

# A suite of which one shard fails: the merge has to run all the same.
mkdir -p suite/specs && cp -R "$root/specs/." suite/specs/ && cp -R "$root/snapshots" suite/
cd suite
sed -i 's/^thresholds.tensor.cosine = 0.99997$/thresholds.tensor.cosine = 0.9999999/' \
  specs/minilm-block0.toml
unset CI
"$QUALM" run --out-dir whole > whole.log || echo "unsharded: exit code $?"
mkdir out
bash "$root/examples/ci/slurm.sh" 4 out
for _ in $(seq 120); do
  if [ -z "$(squeue -h)" ]; then break; fi
  sleep 1
done
scontrol show job -o | awk '{
  line = ""
  for (i = 1; i <= NF; i++) if ($i ~ /^(JobName|ArrayTaskId|JobState|ExitCode)=/) line = line " " $i
  print line
}'
tail -2 out/slurm-merge.log
# The same reports, but for the time of the run.
untimed() { sed -E 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+Z//; s/"seconds": [0-9.e-]+//; s/took [0-9.]+ s//; s/ time="[0-9.]+"//g' "$1"; }
for report in contract.json contract.md junit.xml report.tsv; do
  cmp <(untimed "whole/$report") <(untimed "out/$report")
  echo "$report: equal"
done
