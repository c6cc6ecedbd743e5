#!/bin/bash
# A one-node Slurm in FOLDER for the tests: start.sh start FOLDER | start.sh stop FOLDER
# Needs root and the packages slurm-wlm and munge. Prints the path of its slurm.conf.
set -eu
action=$1 folder=$2
stop() {
  SLURM_CONF="$folder/slurm.conf" scancel --quiet --user="$(id -un)" 2>/dev/null && sleep 1 || true
  for name in slurmd slurmctld munged; do
    if [ -f "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || true; fi
  done
}
[ "$action" = start ] || { stop; exit 0; }
mkdir -p "$folder"/{state,spool,munge}
host=$(hostname -s)
cpus=4  # whatever the machine has: the jobs of a test need not wait for each other
cat > "$folder/slurm.conf" <<CONF
ClusterName=fracnet
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmdParameters=config_overrides
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
InactiveLimit=0
KillWait=10
MinJobAge=300
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
echo "ConstrainCores=no" > "$folder/cgroup.conf"
head -c 1024 /dev/urandom > "$folder/munge/key"
chmod 400 "$folder/munge/key"
chmod 711 "$folder" "$folder/munge"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
export SLURM_CONF="$folder/slurm.conf"
slurmctld
slurmd
for _ in $(seq 60); do
  if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then echo "$SLURM_CONF"; exit 0; fi
  sleep 0.5
done
sinfo >&2 || true
tail -n 20 "$folder"/slurmctld.log "$folder"/slurmd.log >&2 || true
stop
exit 1
