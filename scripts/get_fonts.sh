#!/usr/bin/env bash
# Download the fonts that pages are drawn with and unpack them into a folder, without root.
#
#   bash scripts/get_fonts.sh [FOLDER]     default: fonts in the package's cache (ALIGNVLM_CACHE,
#                                          else ~/.cache/alignvlm), where they are looked for
#
# Needs Debian or Ubuntu (apt-get download, dpkg). Elsewhere: put .ttf and .otf files into FOLDER.
# The packages are FONT_PACKAGES of src/alignvlm/synth/fonts.py, and a list of English words.
set -euo pipefail

folder="${1:-${ALIGNVLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/alignvlm}/fonts}"
root="$(cd "$(dirname "$0")/.." && pwd)"
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3

for tool in apt-get dpkg-deb; do
    if ! command -v "$tool" > /dev/null; then
        echo "get_fonts.sh: $tool is not here: put .ttf and .otf files into $folder yourself" >&2
        exit 1
    fi
done

packages="$(PYTHONPATH="$root/src" "$python" -c \
    'from alignvlm.synth.fonts import FONT_PACKAGES; print(*FONT_PACKAGES, "wamerican")')"

mkdir -p "$folder"
work="$(mktemp -d "$folder/.download-XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work"
failed=""
for package in $packages; do
    if [ -d "$folder/$package" ]; then
        continue
    fi
    if apt-get download "$package" > /dev/null 2> "$package.log"; then
        dpkg-deb -x "$package"_*.deb "$package.part"
        mv "$package.part" "$folder/$package" # renamed when whole, so that a rerun can trust it
        echo "$package"
    else
        failed="$failed $package"
    fi
done
if [ -n "$failed" ]; then
    echo "get_fonts.sh: not available here (try apt-get update):$failed" >&2
fi
if [ -z "$(find "$folder" -name '*.[to]tf' -print -quit)" ]; then
    echo "get_fonts.sh: no font could be downloaded into $folder" >&2
    exit 1
fi
