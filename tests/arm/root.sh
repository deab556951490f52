#!/usr/bin/env bash
# A folder with an aarch64 Debian's libraries and Python, and the base install's wheels, for
# qemu-user: no chroot, no binfmt, no root rights. Made again when this or the lock changes: root.sh FOLDER PIP
set -euo pipefail
folder=$(realpath -m "$1")
pip=$2
stamp=$(cat "$0" requirements/base.txt | sha256sum)
MOST_MB=340
base_install() { # base_install NAME FOLDER PIP_OPTIONS...: installs; prints megabytes and seconds
    local name=$1 target=$2 start=$SECONDS total
    shift 2
    "$pip" install --quiet --no-cache-dir --target "$target" --require-hashes --no-deps \
        --no-compile "$@" -r requirements/base.txt
    total=$(du -m -s "$target" | cut -f1)
    echo "base install, $name: $total MB, downloaded and unpacked in $((SECONDS - start)) s, of it (MB):"
    du -m -d 1 "$target" | sed "s#$target/\?##" | sort -rn | sed 1d | head -6
    [ "$total" -lt "$MOST_MB" ] || { echo "FAILED: over $MOST_MB MB"; exit 1; }
}
[ "$(cat "$folder/ready" 2>/dev/null)" = "$stamp" ] && { cat "$folder/install.txt"; exit 0; }
rm -rf "$folder"
mkdir -p "$folder"/{state/lists/partial,cache/archives/partial,debs,sysroot/proc,packages}
touch "$folder/state/status"
apt=(apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=
     -o Dir::State="$folder/state" -o Dir::State::status="$folder/state/status"
     -o Dir::Cache="$folder/cache")
"${apt[@]}" update
(cd "$folder/debs" && "${apt[@]}" download libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libexpat1 \
    libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1 libsqlite3-0 libcrypt1 libpython3.11-minimal \
    libpython3.11-stdlib python3.11-minimal media-types)
for each in "$folder"/debs/*.deb; do dpkg-deb -x "$each" "$folder/sysroot"; done
{
    base_install "$(uname -m), here" "$folder/x86"
    base_install aarch64 "$folder/packages" --platform manylinux2014_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_28_aarch64 --python-version 311 --implementation cp --abi cp311 \
        --only-binary=:all:
} | tee "$folder/install.txt"
rm -r "$folder/x86"
# Some libraries ask for the CPU here; this one is a Cortex-A72.
printf 'processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n' \
    > "$folder/sysroot/proc/cpuinfo"
rm -r "$folder"/{state,cache,debs}
echo "$stamp" > "$folder/ready"
