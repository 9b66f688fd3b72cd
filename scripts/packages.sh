# Debian packages into a folder, without root; sourced by get_fonts.sh and get_pdfs.sh.
#
# Sets $folder: the argument, else a folder of the package's cache (ALIGNVLM_CACHE, else
# ~/.cache/alignvlm), where alignvlm looks. `get_packages` puts each package into $folder/NAME.
set -euo pipefail

script="$(basename "$0")"
root="$(cd "$(dirname "$0")/.." && pwd)"
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3

# choose_folder NAME [FOLDER]
choose_folder() {
    local cache="${ALIGNVLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/alignvlm}"
    folder="${2:-$cache/$1}"
}

# listed MODULE NAME: the packages that a constant of the Python code names
listed() {
    PYTHONPATH="$root/src" "$python" -c "from $1 import $2; print(*$2)"
}

# get_packages FILES NAME...: FILES as in find -name; `prepare DIR` is called for what was unpacked
get_packages() {
    local files="$1" failed="" package
    shift
    for tool in apt-get dpkg-deb; do
        if ! command -v "$tool" > /dev/null; then
            echo "$script: $tool is not here: put $files files into $folder/NAME/ yourself" >&2
            exit 1
        fi
    done
    mkdir -p "$folder"
    work="$(mktemp -d "$folder/.download-XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    folder="$(cd "$folder" && pwd)"
    cd "$work"
    for package in "$@"; do
        if [ -d "$folder/$package" ]; then
            continue
        fi
        if apt-get download "$package" > /dev/null 2> "$package.log"; then
            dpkg-deb -x "$package"_*.deb "$package.part"
            prepare "$package.part"
            mv "$package.part" "$folder/$package" # renamed when whole, so a rerun can trust it
            echo "$package"
        else
            failed="$failed $package"
        fi
    done
    if [ -n "$failed" ]; then
        echo "$script: not available here (try apt-get update):$failed" >&2
    fi
    if [ -z "$(find "$folder" -name "$files" -print -quit)" ]; then
        echo "$script: nothing could be downloaded into $folder" >&2
        exit 1
    fi
}
