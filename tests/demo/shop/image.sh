#!/bin/sh
# image.sh OUT.tar: writes the shop's image, localhost/shop:1. CLUSTER names
# the cluster program; it is run from its sources when that is not set.
set -eu
out=$(realpath -m "$1")
cd "$(dirname "$0")"
[ -n "${CLUSTER:-}" ] || CLUSTER="go run -C ../../cluster ./cmd/cluster"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$work/shop" .
links=
for applet in sh cat date ls id wget nc sleep touch rm mkdir grep env ps; do
	links="$links --link=busybox:/bin/$applet"
done
# shellcheck disable=SC2086 # the words of these two are meant to be split
$CLUSTER image "$out" localhost/shop:1 --binary="$work/shop" --add="$(command -v busybox):/bin/busybox" $links
