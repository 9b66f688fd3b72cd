#!/usr/bin/env bash
# Download PDF documentation with text layers and unpack it into a folder, without root.
#
#   bash scripts/get_pdfs.sh [FOLDER]     default: pdfs in the package's cache (ALIGNVLM_CACHE,
#                                         else ~/.cache/alignvlm), where it is looked for
#
# Needs Debian or Ubuntu (apt-get download, dpkg) and gzip. The packages are PDF_PACKAGES of
# src/alignvlm/synth/pdf_pages.py. Most are GPL or GFDL: train on them, do not redistribute them.
. "$(dirname "$0")/packages.sh"

prepare() { # of a package its PDFs alone
    find "$1" -type l -delete
    find "$1" -type f -name '*.pdf.gz' -exec gzip -d {} +
    find "$1" -type f ! -name '*.pdf' -delete
}

choose_folder pdfs "$@"
packages="$(listed alignvlm.synth.pdf_pages PDF_PACKAGES)"
# shellcheck disable=SC2086 # one argument a package
get_packages '*.pdf' $packages
