#!/usr/bin/env bash
# The client of the lab: curl, arping, and the program that measures.
set -euo pipefail
command -v curl >/dev/null && command -v arping >/dev/null || {
	apt-get update -qq
	apt-get install -y -qq curl iputils-arping >/dev/null
}
install -m 755 /tmp/probe /usr/local/bin/probe
