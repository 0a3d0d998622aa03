#!/usr/bin/env bash
# A web server of the lab: nginx that says its name and is well.
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nginx-light >/dev/null
echo "hello from $(hostname)" >/var/www/html/index.html
echo ok >/var/www/html/healthz
systemctl enable --now nginx
