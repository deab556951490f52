#!/usr/bin/env bash
# The makers' packages: FOLDER/larq, a virtual environment of larq and its converter, and
# FOLDER/brevitas, packages beside our own. Made again when their pins change: environments.sh FOLDER PYTHON
set -euo pipefail
folder=$(realpath -m "$1")
python=$2
here=$(dirname "$0")
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "the pins are for Python 3.11")'
fresh() { # fresh NAME PINS: whether FOLDER/NAME is there with these pins; else it is emptied
    [ "$(cat "$folder/$1/ready" 2>/dev/null)" = "$(sha256sum < "$2")" ] && return
    rm -rf "${folder:?}/$1"
    echo "installing $1 into $folder/$1"
    return 1
}
pip=(-m pip install --quiet --no-input --disable-pip-version-check --no-compile --require-hashes --no-deps)

pins=$here/requirements.txt
fresh larq "$pins" || {
    "$python" -m venv "$folder/larq"
    "$folder/larq/bin/python" "${pip[@]}" -r "$pins"
    sha256sum < "$pins" > "$folder/larq/ready"
}
pins=$here/requirements-brevitas.txt
fresh brevitas "$pins" || {
    "$python" "${pip[@]}" --target "$folder/brevitas" -r "$pins"
    sha256sum < "$pins" > "$folder/brevitas/ready"
}
