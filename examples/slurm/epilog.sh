#!/bin/sh
# SLURM's epilog for hf_eco2ai (docs/cluster.md). In slurm.conf: Epilog=/etc/slurm/hf-eco2ai-epilog.sh
#
# Takes back what prolog.sh has told Prometheus. There is nothing to do about runs: those that ended have said so, and those that
# were killed are known to be lost. Whatever fails is said and passed over, since SLURM drains a node whose epilog fails.

PATH=/usr/sbin:/usr/bin:/sbin:/bin # SLURM sets none.
export PATH

# As in prolog.sh.
SITE=/etc/default/hf-eco2ai

TARGETS_DIR=

if [ -r "$SITE" ]; then
  # shellcheck source=/dev/null
  . "$SITE"
fi

job=$(printf '%s' "${SLURM_JOB_ID:-}" | tr -cd '0-9')
node=$(printf '%s' "${SLURMD_NODENAME:-$(uname -n)}" | tr -cd 'A-Za-z0-9._-')

if [ -n "$TARGETS_DIR" ]; then
  rm -f "$TARGETS_DIR/hf-eco2ai.$job.$node.json" || echo "hf-eco2ai epilog: the target of job $job cannot be removed" >&2
fi
exit 0
