#!/usr/bin/env bash
# A server of the lab: nginx that says its name and is well, and an echo service for connections that last.
set -euo pipefail
[ -x /usr/sbin/nginx ] || {
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nginx-light >/dev/null
}
mkdir -p /var/www/html
echo "hello from $(hostname)" >/var/www/html/index.html
echo ok >/var/www/html/healthz
systemctl enable --quiet --now nginx
install -m 755 /tmp/probe /usr/local/bin/probe
cat >/etc/systemd/system/echo.service <<UNIT
[Service]
ExecStart=/usr/local/bin/probe -echo :7000
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --quiet --now echo
