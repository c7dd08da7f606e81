#!/bin/sh
# Gets SeaBIOS, which the peer of the boot figure needs, from Debian's package archive: `bench/fetch-seabios.sh FOLDER`.
# Needs no root and changes nothing of the machine but FOLDER.
set -eu
folder=${1:?"name a folder"}
mkdir -p "$folder"
cd "$folder"
apt-get -qq -o APT::Sandbox::User="" download seabios || {
  echo "cannot download Debian's package seabios (apt-get update as root may help)" >&2
  exit 1
}
dpkg-deb -x seabios_*.deb .
rm -f seabios_*.deb
