#!/bin/sh
# SLURM's prologs for hf_eco2ai (docs/cluster.md). In slurm.conf, the same file twice:
#
#   Prolog=/etc/slurm/hf-eco2ai-prolog.sh        root, on each node of a job: makes the runs folder where that is missing, and
#                                                tells Prometheus of the job where no daemon serves the node
#   TaskProlog=/etc/slurm/hf-eco2ai-prolog.sh    the job's user: prints what goes into the environment of the job's tasks
#
# Whatever fails is said and passed over, since SLURM drains a node whose prolog fails.

PATH=/usr/sbin:/usr/bin:/sbin:/bin # SLURM sets none.
export PATH

# What a site sets, as lines of NAME=value in this file.
SITE=/etc/default/hf-eco2ai

RUNS_DIR=/var/lib/hf-eco2ai/runs
GROUP=hf-eco2ai # Who trains is in it, and so is the daemon.
OWNER=hf-eco2ai # The daemon's user; root where there is none.
TARGETS_DIR=    # A shared folder that Prometheus reads; empty where a daemon serves the node.
FIRST_PORT=20000
WEB_CONFIG= # For the endpoints of jobs: TLS and passwords, in a file that every job may read.

if [ -r "$SITE" ]; then
  # shellcheck source=/dev/null
  . "$SITE"
fi

say() {
  echo "hf-eco2ai prolog: $*" >&2
}

plain() { # Names as they may stand in a JSON string and in a file's name.
  printf '%s' "$1" | tr -cd 'A-Za-z0-9._-'
}

job=$(printf '%s' "${SLURM_JOB_ID:-}" | tr -cd '0-9')
node=$(plain "${SLURMD_NODENAME:-$(uname -n)}")
port=$((FIRST_PORT + ${job:-0} % 10000)) # Both prologs come to the same one.

make_runs_dir() {
  if [ -d "$RUNS_DIR" ]; then
    return
  fi
  id -u "$OWNER" >/dev/null 2>&1 || OWNER=root
  above=$(dirname "$RUNS_DIR")
  [ -d "$above" ] || install -d -m 0755 -o "$OWNER" -g "$GROUP" "$above"
  install -d -m 2770 -o "$OWNER" -g "$GROUP" "$RUNS_DIR" || say "$RUNS_DIR cannot be made"
}

tell_prometheus() {
  if [ -z "$TARGETS_DIR" ]; then
    return
  fi
  file=$TARGETS_DIR/hf-eco2ai.$job.$node.json
  labels="\"slurm_job_id\": \"$job\", \"slurm_user\": \"$(plain "${SLURM_JOB_USER:-}")\""
  labels="$labels, \"slurm_partition\": \"$(plain "${SLURM_JOB_PARTITION:-}")\""
  # Renamed when it is whole, since Prometheus reads it as soon as it is there.
  { printf '[{"targets": ["%s:%s"], "labels": {%s}}]\n' "$node" "$port" "$labels" >"$file.new" && mv -f "$file.new" "$file"; } ||
    say "$file cannot be written"
}

tell_tasks() {
  if [ -z "${HF_ECO2AI_RUNS_DIR:-}" ] && [ -w "$RUNS_DIR" ]; then
    echo "export HF_ECO2AI_RUNS_DIR=$RUNS_DIR"
  fi
  if [ -n "$TARGETS_DIR" ]; then
    echo "export HF_ECO2AI_PROMETHEUS_HOST=0.0.0.0"
    echo "export HF_ECO2AI_PROMETHEUS_PORT=$port"
    [ -z "$WEB_CONFIG" ] || echo "export HF_ECO2AI_PROMETHEUS_WEB_CONFIG=$WEB_CONFIG"
  fi
}

case ${SLURM_SCRIPT_CONTEXT:-} in
  prolog_slurmd)
    make_runs_dir
    tell_prometheus
    ;;
  prolog_task)
    tell_tasks
    ;;
  *)
    say "not called by SLURM as Prolog or TaskProlog: SLURM_SCRIPT_CONTEXT is '${SLURM_SCRIPT_CONTEXT:-}'"
    ;;
esac
exit 0
