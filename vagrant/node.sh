#!/usr/bin/env bash
# node.sh NAME ADDRESS FOUNDER: a balancer of the lab. The founder makes the cluster and leaves a token where the others find
# it; the others join. Running it again brings a new binary and changes nothing else.
set -euo pipefail
name=$1 address=$2 founder=$3
port=7942 # the lab's own hand-over of the token, closed as soon as the last node has joined

/tmp/scripts/install --binary /tmp/skein --name "$name" --advertise "$address"

if [ ! -e /var/lib/skein/cluster/node.crt ]; then
	if [ "$address" = "$founder" ]; then
		skein cluster init --config /etc/skein/node.hcl
	else
		apt-get update -qq && apt-get install -y -qq curl >/dev/null
		token=$(curl -fsS --retry 30 --retry-delay 1 --retry-all-errors "http://$founder:$port/token")
		skein cluster join "$founder" --config /etc/skein/node.hcl --token "$token"
	fi
fi
systemctl enable --now skein
systemctl restart skein

if [ "$address" = "$founder" ]; then
	until skein status >/dev/null 2>&1 || [ $? = 2 ]; do sleep 0.2; done
	skein apply /tmp/edge.hcl -m "the lab's first configuration"
	dir=$(mktemp -d)
	skein cluster token --uses 2 --expires 1h -o name >"$dir/token"
	apt-get update -qq && apt-get install -y -qq python3 >/dev/null
	systemd-run --quiet --unit=skein-lab-token --collect --property=RuntimeMaxSec=1h \
		python3 -m http.server --bind "$address" --directory "$dir" $port
fi
skein node list
