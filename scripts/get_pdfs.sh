#!/usr/bin/env bash
# Download PDF documentation with text layers and unpack it into a folder, without root.
#
#   bash scripts/get_pdfs.sh [FOLDER]     default: ~/.cache/alignvlm/pdfs
#
# Needs Debian or Ubuntu (apt-get download, dpkg). The packages are PDF_PACKAGES of
# src/alignvlm/synth/pdf_pages.py. Most are GPL or GFDL: train on them, do not redistribute them.
set -euo pipefail

folder="${1:-$HOME/.cache/alignvlm/pdfs}"
root="$(cd "$(dirname "$0")/.." && pwd)"
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3

for tool in apt-get dpkg-deb gzip; do
    if ! command -v "$tool" > /dev/null; then
        echo "get_pdfs.sh: $tool is not here: put PDFs into $folder/NAME/ yourself" >&2
        exit 1
    fi
done

packages="$(PYTHONPATH="$root/src" "$python" -c \
    'from alignvlm.synth.pdf_pages import PDF_PACKAGES; print(*PDF_PACKAGES)')"

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
        find "$package.part" -type l -delete
        find "$package.part" -type f -name '*.pdf.gz' -exec gzip -d {} +
        find "$package.part" -type f ! -name '*.pdf' -delete
        mv "$package.part" "$folder/$package" # renamed when whole, so that a rerun can trust it
        echo "$package"
    else
        failed="$failed $package"
    fi
done
if [ -n "$failed" ]; then
    echo "get_pdfs.sh: not available here (try apt-get update):$failed" >&2
fi
if [ -z "$(find "$folder" -name '*.pdf' -print -quit)" ]; then
    echo "get_pdfs.sh: no PDF could be downloaded into $folder" >&2
    exit 1
fi
