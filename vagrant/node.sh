#!/usr/bin/env bash
# node.sh NAME ADDRESS FOUNDER: a balancer of the lab. The founder makes the cluster and leaves a token where the others find
# it; the others join. Running it again brings a new binary and changes nothing else.
set -euo pipefail
name=$1 address=$2 founder=$3
port=7999 # where the founder leaves the token, for an hour: this is a lab

net=${address%.*}
sed -i "s/192\.168\.56\./$net./g" /tmp/edge.hcl

need() { # COMMAND PACKAGE
	command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || {
		apt-get update -qq
		apt-get install -y -qq "$2" >/dev/null
	}
}

member=0
[ ! -e /var/lib/skein/cluster/node.crt ] || member=1
/tmp/scripts/install --binary /tmp/skein --name "$name" --advertise "$address"

if [ $member = 0 ] && [ "$address" = "$founder" ]; then
	skein cluster init
elif [ $member = 0 ]; then
	need curl curl
	token=$(curl -fsS --retry 300 --retry-delay 1 --retry-all-errors "http://$founder:$port/token")
	skein cluster join "$founder" --token "$token"
fi
systemctl enable --quiet skein skein-guard
systemctl restart skein

if [ $member = 0 ] && [ "$address" = "$founder" ]; then
	until skein status -o name >/dev/null 2>&1 || [ $? = 2 ]; do sleep 0.2; done
	skein apply /tmp/edge.hcl -m "the lab's first configuration"
	dir=$(mktemp -d)
	skein cluster token --uses 2 --expires 1h -o name >"$dir/token"
	need python3 python3
	systemd-run --quiet --unit=skein-lab-token --collect --property=RuntimeMaxSec=1h \
		python3 -m http.server --bind "$address" --directory "$dir" $port
fi
# A node that has just joined knows nothing yet; say how things are when it does.
for _ in $(seq 150); do
	skein status -o name >/dev/null 2>&1 || [ $? = 2 ] && break
	sleep 0.2
done
skein node list || [ $? = 2 ]
