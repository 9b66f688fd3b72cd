#!/usr/bin/env bash
# Download the fonts that pages are drawn with and unpack them into a folder, without root.
#
#   bash scripts/get_fonts.sh [FOLDER]     default: fonts in the package's cache (ALIGNVLM_CACHE,
#                                          else ~/.cache/alignvlm), where they are looked for
#
# Needs Debian or Ubuntu (apt-get download, dpkg). Elsewhere: put .ttf and .otf files into FOLDER.
# The packages are FONT_PACKAGES of src/alignvlm/synth/fonts.py.
. "$(dirname "$0")/packages.sh"

prepare() { :; }

choose_folder fonts "$@"
packages="$(listed alignvlm.synth.fonts FONT_PACKAGES)"
# shellcheck disable=SC2086 # one argument a package
get_packages '*.[to]tf' $packages
