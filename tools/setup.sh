#!/usr/bin/env bash
# Installs what Polder needs on a Debian machine and builds the environment in .venv. Idempotent; quick when
# nothing is missing. SETUP_DEV=1 adds what the tests and benchmarks need.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[2m%s\033[0m\n' "$*" >&2; }

packages=(python3 python3-venv containerd runc nftables libnftables1 iproute2 busybox-static procps gcc libc6-dev
          ca-certificates openssl util-linux mount)
if [ "${SETUP_DEV:-0}" = 1 ]; then
    packages+=(containernetworking-plugins iperf3 tcpdump conntrack git dnsperf unbound)
    command -v npm >/dev/null || packages+=(nodejs npm)
fi
command -v kubectl >/dev/null || packages+=(kubernetes-client)

missing=()
for p in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "polder: setup needs root to install: ${missing[*]}" >&2; exit 1; }
    say "installing ${missing[*]}"
    log=$(mktemp)
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
           "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "polder: installing packages failed; the last lines of apt-get are above" >&2
        exit 1
    fi
    rm -f "$log"
fi

[ -x .venv/bin/python ] || { say "creating .venv"; python3 -m venv .venv; }
[ -x .venv/bin/uv ] || .venv/bin/pip install --quiet --disable-pip-version-check uv
stamp=.venv/.polder-$(cat requirements/*.txt tools/generate.py third_party/*/*.proto pyproject.toml | sha256sum | cut -c1-16)
if [ ! -e "$stamp" ] || [ ! -d polder/_generated ]; then
    say "installing the locked Python packages"
    VIRTUAL_ENV=.venv .venv/bin/uv pip sync --quiet --compile-bytecode requirements/dev.txt
    VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
    .venv/bin/python tools/generate.py
    rm -f .venv/.polder-*
    touch "$stamp"
fi
# As an installed wheel has it: a daemon starts in half the time. Done here for those whose environment forbids Python to
# write bytecode by itself; what is compiled already is only looked at.
.venv/bin/python -m compileall -q polder
