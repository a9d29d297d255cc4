#!/usr/bin/env bash
# One machine of a Ray cluster made by hand, started anew whenever Ray ends: a worker that has lost its
# head finds the next one. Under `tmux`, `nohup` or a systemd unit; Ctrl-C or SIGTERM ends it.
#
#   infra/machines/ray-node.sh head 10.0.0.1                   # the address the others reach it by
#   infra/machines/ray-node.sh worker 10.0.0.1 --num-gpus=2    # more options of `ray start` at the end
#
# Every machine has the same bhnbench, the same ~/.ray/auth_token (mode 600; `ray get-auth-token
# --generate` makes one) and, the head alone, ~/.config/bhnbench/env with BHNBENCH_LEDGER and the like.
set -euo pipefail

role="${1:-}" head="${2:-}"
case "$role" in head | worker) ;; *) role= ;; esac
if [ -z "$role" ] || [ -z "$head" ]; then
  echo "usage: $0 head|worker ADDRESS_OF_THE_HEAD [OPTIONS OF ray start]" >&2
  exit 2
fi
shift 2

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
token="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
if [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "$token" ]; then
  echo "$token: every machine needs the cluster's token, but there is none;" \
    "make one with \`ray get-auth-token --generate\` and copy it to all" >&2
  exit 1
fi

# A node that is cut off is given up after 3 x (3 + 5) s; a worker without a head ends after 20 s.
export RAY_health_check_period_ms=3000 RAY_health_check_timeout_ms=5000
export RAY_health_check_failure_threshold=3 RAY_gcs_rpc_server_reconnect_timeout_s=20

port="${RAY_PORT:-6379}"
if [ "$role" = head ]; then
  settings="${BHNBENCH_ENV:-$HOME/.config/bhnbench/env}"
  if [ -r "$settings" ]; then
    set -a
    # shellcheck source=/dev/null
    . "$settings"
    set +a
  fi
  start=(ray start --head --block --node-ip-address="$head" --port="$port" --dashboard-host="$head")
else
  start=(ray start --block --address="$head:$port")
fi

node=
trap '[ -z "$node" ] || kill "$node" 2>/dev/null; wait; exit 0' INT TERM
while true; do
  "${start[@]}" --disable-usage-stats "$@" &
  node=$!
  status=0
  wait "$node" || status=$?
  echo "Ray ended here ($status); again in 5 s" >&2
  sleep 5 &
  wait $!
done
