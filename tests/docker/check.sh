#!/usr/bin/env bash
# Builds the images with buildah (no daemon), as root: slim twice, whose ids must be equal, and the
# warm layer, also with a cache that cannot be written; runs bench inside. With TRAIN=1 the train image as well, and a training
# whose model must have the bytes of the same training outside. Usage: check.sh FOLDER PYTHON
#
# The base is a stand-in made with debootstrap from Debian's own packages, not the official image.
set -euo pipefail
folder=$(realpath -m "$1")
python=$(realpath -s "$2")
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
mkdir -p "$folder"
base=localhost/frostbit-base
ca=/etc/ssl/certs/ca-certificates.crt
printf '[global]\ncert = %s\n' "$ca" > "$folder/pip.conf"
say() { printf '%s\n' "$*"; }

if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
    say "making the base with debootstrap"
    [ -e "$folder/rootfs/ready" ] || {
        rm -rf "$folder/rootfs"
        debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
            bookworm "$folder/rootfs" > "$folder/debootstrap.log"
        rm -rf "$folder/rootfs"/var/cache/apt/archives/*.deb "$folder/rootfs"/var/lib/apt/lists/*
        touch "$folder/rootfs/ready"
    }
    container=$(buildah from scratch)
    buildah add -q "$container" "$folder/rootfs" / > /dev/null
    buildah commit -q "$container" "$base" > /dev/null
    buildah rm "$container" > /dev/null
fi

build() { # build TARGET TAG
    local start=$SECONDS
    buildah bud --pull-never --no-cache --layers=false --timestamp 0 --isolation chroot -q \
        --build-arg BASE="$base" --target "$1" -t "$2" -v "$ca:$ca:ro" \
        -v "$folder/pip.conf:/etc/pip.conf:ro" . > "$folder/build-$2.log"
    say "$2: $(buildah inspect --type image --format '{{.FromImageID}}' "$2" | cut -c1-16)," \
        "$(size "$2") MB, built in $((SECONDS - start)) s"
}
size() { # MB of the image's own files
    local container mounted
    container=$(buildah from --pull-never "$1")
    mounted=$(buildah mount "$container")
    du -sm --apparent-size "$mounted" | cut -f1
    buildah rm "$container" > /dev/null
}
inside() { # inside IMAGE COMMAND...: as the image's user
    local container
    container=$(buildah from --pull-never "$1")
    shift
    buildah run --user 1000 "$container" -- "$@"
    local status=$?
    buildah rm "$container" > /dev/null
    return "$status"
}

build slim frostbit-slim
first=$(buildah inspect --type image --format '{{.FromImageID}}' frostbit-slim)
build slim frostbit-slim
second=$(buildah inspect --type image --format '{{.FromImageID}}' frostbit-slim)
[ "$first" = "$second" ] || { say "FAILED: two builds differ: $first $second"; exit 1; }
say "two builds of slim have one id: $first"

tool=/opt/frostbit/bin/pipeline
inside frostbit-slim "$tool" bench --synthetic resnet18@32 --runtime engine --runtime ort \
    --rounds 5 --json /tmp/bench.json | grep "parity passed"
inside frostbit-slim sh -c 'test "$(id -u)" = 1000 && ! test -w /opt/frostbit'
say "slim: bench runs as uid 1000"

build warm frostbit-warm
inside frostbit-warm "$tool" bench --warm-cache | tee "$folder/warm.log"
grep -q "engine ready after [0-2]\." "$folder/warm.log" || { say "FAILED: not warm"; exit 1; }
inside frostbit-warm sh -c "chmod -R a-w /home/frostbit && $tool bench --warm-cache" \
    | grep "engine ready after [0-2]\."
inside frostbit-warm env NUMBA_CPU_NAME=x86-64-v3 NUMBA_CPU_FEATURES=+avx2,+popcnt,+ssse3 \
    "$tool" bench --synthetic resnet18@32 --runtime engine --rounds 2 --json /tmp/bench.json \
    | grep "parity passed"
say "warm: compiled code is found; another CPU compiles its own"

if [ "${TRAIN:-0}" = 1 ]; then
    build train frostbit-train
    sha=$(inside frostbit-train sh -c "$tool run --recipe digits --out /tmp/run > /tmp/log 2>&1 \
        || cat /tmp/log; sha256sum < /tmp/run/model.bnn")
    "$(dirname "$python")/pipeline" run --recipe digits --out "$folder/run" --force > /dev/null
    [ "$sha" = "$(sha256sum < "$folder/run/model.bnn")" ] || { say "FAILED: other bytes"; exit 1; }
    say "train: model.bnn has the same bytes inside and outside: $sha"
fi
