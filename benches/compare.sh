#!/usr/bin/env bash
# HTTP/1.1 small responses side by side: Ringway, nginx and HAProxy in front of the same four nginx backends, header hash
# with a bound of 1.25, 64 connections. The proxy has core 0, load and backends core 1. Runs are interleaved; medians.
#
#   cargo build --release --workspace && benches/compare.sh [ROUNDS] [SECONDS]      (5 rounds of 4 s if not said otherwise)
#   benches/compare.sh --smoke                                          (one short round: does it run at all?)
#
# `floor` is bytes relayed unread by plain epoll: what the kernel takes, whatever the proxy does.
# Needs nginx, haproxy, wrk and h2load; a peer that is missing is named and skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-4}
[ "$rounds" = --smoke ] && rounds=1 seconds=1
binary=target/release/ringway
work=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
have() { command -v "$1" >/dev/null || { echo "skipped: $1 is not installed" >&2; return 1; }; }
have wrk && have nginx || exit 1
proxy_core=0 load_core=$(( $(nproc) > 1 ? 1 : 0 ))
body=$(printf '0%.0s' {1..128})
ports=(19001 19002 19003 19004)

{
  echo "daemon off; worker_processes 1; pid $work/b.pid; error_log $work/b.log; events { worker_connections 8192; }"
  echo "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;"
  for port in "${ports[@]}"; do
    echo "server { listen 127.0.0.1:$port reuseport; location / { return 200 \"$body\"; } }"
  done
  echo "}"
} > "$work/backends.conf"
{
  echo "daemon off; worker_processes 1; pid $work/n.pid; error_log $work/n.log; events { worker_connections 8192; }"
  echo "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;"
  echo "upstream u { hash \$http_x_user_id consistent; $(printf 'server 127.0.0.1:%s; ' "${ports[@]}") keepalive 256; keepalive_requests 1000000000; }"
  echo "server { listen 127.0.0.1:19102 reuseport; location / { proxy_pass http://u; proxy_http_version 1.1;"
  echo "proxy_set_header Connection \"\"; proxy_set_header Host \$host; } } }"
} > "$work/nginx.conf"
{
  printf 'global\n  nbthread 1\n  maxconn 5000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n'
  printf '  http-reuse always\nfrontend f\n  bind 127.0.0.1:19103\n  default_backend b\nbackend b\n  balance hdr(x-user-id)\n'
  printf '  hash-type consistent\n  hash-balance-factor 125\n'
  for port in "${ports[@]}"; do echo "  server s$port 127.0.0.1:$port"; done
} > "$work/haproxy.cfg"
{
  echo "workers: 1"
  echo "admin: { address: \"127.0.0.1:19911\" }"
  echo "listeners: [ { name: web, address: \"127.0.0.1:19101\", service: s } ]"
  echo "services:"
  echo "  - name: s"
  echo "    balance: { hash_key: [ { header: x-user-id } ], bounded_load: { factor: 1.25 } }"
  echo "    backends:"
  for port in "${ports[@]}"; do echo "      - { id: s$port, address: \"127.0.0.1:$port\" }"; done
} > "$work/ringway.yaml"
cat > "$work/load.lua" <<'LUA'
local n, requests = 0, {}
for i = 1, 1000 do requests[i] = "GET / HTTP/1.1\r\nHost: bench\r\nx-user-id: user-" .. i .. "\r\n\r\n" end
request = function() n = n % 1000 + 1; return requests[n] end
done = function(s, l)
  local e = s.errors
  io.write(string.format("RESULT %d %d %.3f\n", s.requests, e.connect + e.read + e.write + e.status + e.timeout, l:percentile(99) / 1000))
end
LUA

start() { taskset -c "$1" "${@:2}" >/dev/null 2>&1 & pids+=($!); last=$!; }
start "$load_core" nginx -c "$work/backends.conf" -e "$work/b.log"
names=() ports_of=() pids_of=()
start "$proxy_core" "$binary" run --config "$work/ringway.yaml"
names+=(ringway) ports_of+=(19101) pids_of+=("$last")
start "$proxy_core" nginx -c "$work/nginx.conf" -e "$work/n.log"; nginx_master=$last
if have haproxy; then
  start "$proxy_core" haproxy -db -f "$work/haproxy.cfg"
  names+=(haproxy) ports_of+=(19103) pids_of+=("$last")
fi
if [ -x target/release/floor ]; then
  start "$proxy_core" target/release/floor 127.0.0.1:19104 $(printf '127.0.0.1:%s ' "${ports[@]}")
  names+=(floor) ports_of+=(19104) pids_of+=("$last")
fi
sleep 1.5
names+=(nginx) ports_of+=(19102) pids_of+=("$(pgrep -P "$nginx_master" | head -1)")

cpu() { awk '{print $14, $15}' "/proc/$1/stat"; }
ticks=$(getconf CLK_TCK)
measure() { # name port pid -> "name user_us system_us total_us requests errors p99_ms"
  local before after result
  before=$(cpu "$3")
  result=$(taskset -c "$load_core" wrk -t1 -c64 -d"${seconds}s" -s "$work/load.lua" "http://127.0.0.1:$2/" | grep RESULT)
  after=$(cpu "$3")
  awk -v name="$1" -v before="$before" -v after="$after" -v result="$result" -v ticks="$ticks" 'BEGIN {
    split(before, b, " "); split(after, a, " "); split(result, r, " ")
    user = (a[1] - b[1]) / ticks * 1e6 / r[2]; kernel = (a[2] - b[2]) / ticks * 1e6 / r[2]
    printf "%s %.2f %.2f %.2f %d %d %s\n", name, user, kernel, user + kernel, r[2], r[3], r[4] }'
}
fixed() { # name port pid -> "name cpu_us p50_us p99_us"
  local before after
  before=$(cpu "$3")
  taskset -c "$load_core" h2load --h1 -c 64 -t 1 --rps 78 -D "$seconds" --log-file="$work/l.log" -H 'x-user-id: 1' "http://127.0.0.1:$2/" >/dev/null 2>&1
  after=$(cpu "$3")
  sort -n -k3 "$work/l.log" | awk -v name="$1" -v before="$before" -v after="$after" -v ticks="$ticks" '{ d[NR] = $3 } END {
    split(before, b, " "); split(after, a, " ")
    printf "%s %.1f %d %d\n", name, (a[1] + a[2] - b[1] - b[2]) / ticks * 1e6 / NR, d[int(NR * 0.5) + 1], d[int(NR * 0.99)] }'
  rm -f "$work/l.log"
}
for _ in $(seq "$rounds"); do
  for index in "${!names[@]}"; do measure "${names[$index]}" "${ports_of[$index]}" "${pids_of[$index]}" >> "$work/saturated"; done
done
if have h2load; then
  for _ in $(seq "$rounds"); do
    for index in "${!names[@]}"; do fixed "${names[$index]}" "${ports_of[$index]}" "${pids_of[$index]}" >> "$work/fixed"; done
  done
fi
median() { grep "^$2 " "$1" | awk -v c="$3" '{print $c}' | sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
echo
echo "| HTTP/1.1 small, 64 connections, all they can | user us | kernel us | CPU us per request | to ringway | requests/s | errors | p99 ms |"
echo "|---|---|---|---|---|---|---|---|"
ours=$(median "$work/saturated" ringway 4)
for name in "${names[@]}"; do
  total=$(median "$work/saturated" "$name" 4)
  awk -v n="$name" -v u="$(median "$work/saturated" "$name" 2)" -v k="$(median "$work/saturated" "$name" 3)" -v t="$total" -v o="$ours" \
      -v r="$(median "$work/saturated" "$name" 5)" -v s="$seconds" -v e="$(median "$work/saturated" "$name" 6)" -v p="$(median "$work/saturated" "$name" 7)" \
      'BEGIN { printf "| %s | %.2f | %.2f | %.2f | %.2f | %d | %d | %.2f |\n", n, u, k, t, t / o, r / s, e, p }'
done
if [ -s "$work/fixed" ]; then
  echo
  echo "| the same at 5,000 requests/s | CPU us per request | p50 us | p99 us |"
  echo "|---|---|---|---|"
  for name in "${names[@]}"; do
    echo "| $name | $(median "$work/fixed" "$name" 2) | $(median "$work/fixed" "$name" 3) | $(median "$work/fixed" "$name" 4) |"
  done
fi
awk '$6 > 0 { bad = 1 } END { exit bad }' "$work/saturated" || { echo "there were errors" >&2; exit 1; }
