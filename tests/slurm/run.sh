#!/usr/bin/env bash
# Starts a Slurm of two nodes on this machine, runs tests/scale_out.rs against it (or those of its tests that are named), and stops
# it again. As root, with Debian's packages slurm-wlm and munge:
#
#     apt-get install slurm-wlm munge && tests/slurm/run.sh array
#
# Exit code 2 when a program is missing, 3 when the cluster does not come up.
set -euo pipefail
cd "$(dirname "$0")/../.."
for program in slurmctld slurmd sbatch munged; do
  command -v "$program" >/dev/null || { echo "$program is missing: apt-get install slurm-wlm munge"; exit 2; }
done
work=$(mktemp -d)
host=$(hostname -s)
export SLURM_CONF=$work/slurm.conf
mkdir "$work"/{state,spool,log,pid,munge}
chmod 755 "$work"
cat >"$SLURM_CONF" <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool/%n
SlurmctldPidFile=$work/pid/slurmctld
SlurmdPidFile=$work/pid/%n
SlurmctldLogFile=$work/log/slurmctld
SlurmdLogFile=$work/log/%n
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=5
ReturnToService=2
JobRequeue=1
KillWait=15
NodeName=a NodeHostname=$host NodeAddr=127.0.0.1 Port=26818 CPUs=1
NodeName=b NodeHostname=$host NodeAddr=127.0.0.1 Port=26819 CPUs=1
PartitionName=both Nodes=a,b Default=YES MaxTime=INFINITE State=UP
EOF

# A key and a socket of its own: a munge that runs already is left alone.
dd if=/dev/urandom of="$work/munge/key" bs=1024 count=1 status=none
chmod 400 "$work/munge/key"
munged --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/pid/munged" --log-file="$work/log/munged" \
  --seed-file="$work/munge/seed" --force 2>/dev/null
# A daemon saves its state after the signal: the folder is removed once they have all ended.
stop() {
  local daemons
  daemons=$(for file in "$work"/pid/*; do [ -f "$file" ] && echo "$(<"$file")"; done || true)
  kill $daemons 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 $daemons 2>/dev/null || break
    sleep 0.2
  done
  kill -KILL $daemons 2>/dev/null || true
  [ -n "${KEEP:-}" ] && echo "logs in $work/log" || rm -rf "$work" || true
}
trap stop EXIT
slurmctld
for node in a b; do slurmd -N "$node"; done
for _ in $(seq 30); do
  [ "$(sinfo --noheader --Node --states=idle | wc -l)" = 2 ] && break
  sleep 1
done
sinfo
[ "$(sinfo --noheader --Node --states=idle | wc -l)" = 2 ] || { echo "the cluster did not come up"; exit 3; }
cargo test --release --locked --test scale_out "$@" -- --nocapture
