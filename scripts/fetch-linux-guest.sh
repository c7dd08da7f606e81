#!/bin/sh
# Makes the files of the Linux guest: vmlinuz and initrd.cpio, from Debian's i386 packages.
#
#   scripts/fetch-linux-guest.sh [FOLDER]      FOLDER is .cache/guest-linux in the project unless given
#
# Uses the package sources this machine is configured with, but none of its package state: lists, status and downloads
# live in FOLDER, so no root is needed and nothing of the machine changes. Does nothing when FOLDER is complete.
# The archive is written here, byte by byte, rather than by cpio: equal packages then give an equal archive, and a
# guest boots from it to the bit alike on every machine.
set -eu
export LC_ALL=C
umask 022

script=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
folder=${1:-$(dirname "$script")/../.cache/guest-linux}

fail() {
  echo "fetch-linux-guest: $1" >&2
  exit 1
}

for tool in apt-get apt-cache dpkg-deb awk tar cksum; do
  command -v "$tool" >/dev/null 2>&1 ||
    fail "$tool is missing; this script needs Debian, or a system with Debian's apt and Debian's package sources"
done

mkdir -p "$folder" 2>/dev/null || fail "cannot make the folder $folder; give one that you may write to"
folder=$(cd "$folder" && pwd)
[ -w "$folder" ] || fail "cannot write to $folder; give a folder that you may write to"

# The stamp is written last and names this very text: a changed script makes the files again.
stamp="script $(cksum <"$script")"
if [ -s "$folder/vmlinuz" ] && [ -s "$folder/initrd.cpio" ] &&
  [ "$(head -n 1 "$folder/complete" 2>/dev/null)" = "$stamp" ]; then
  echo "fetch-linux-guest: complete: $folder"
  exit 0
fi
rm -f "$folder/complete"

# ---- packages ---------------------------------------------------------------------------------

apt=$folder/apt
packages=$folder/packages
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/empty" "$packages"
: >"$apt/status"

# Hooks are cleared because they are meant for the machine's own state. Downloads run as the caller: apt's usual
# account could not write here.
cat >"$apt/apt.conf" <<CONF
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "i386";
APT::Architectures { "i386"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Debug::NoLocking "true";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
CONF

# One source that fails is not the end: the packages may well come from another.
echo "fetch-linux-guest: reading package lists"
apt-get -c "$apt/apt.conf" -qq update >"$apt/log" 2>&1 || true
if [ -s "$apt/log" ]; then
  sed 's/^/  /' "$apt/log" >&2
  echo "fetch-linux-guest: some package lists could not be read (above); going on with the others" >&2
fi

# linux-image-686 is an empty package that depends on the newest kernel.
kernel=$(apt-cache -c "$apt/apt.conf" depends linux-image-686 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }')
[ -n "$kernel" ] ||
  fail "found no package linux-image-686 for i386; /etc/apt must name Debian's archive, and it must answer"

# The package apt chooses today decides which file is used, so that an older download cannot be taken by mistake. Asked
# in an empty folder: apt-get names nothing that already lies in the current one.
download() {
  name=$(cd "$apt/empty" && apt-get -c "$apt/apt.conf" --print-uris download "$1" 2>"$apt/log" |
    awk '/\.deb / { print $2; exit }')
  [ -n "$name" ] || {
    sed 's/^/  /' "$apt/log" >&2
    fail "no package $1 for i386 in this machine's sources (above)"
  }
  if [ ! -s "$packages/$name" ]; then
    echo "fetch-linux-guest: downloading $1" >&2
    (cd "$packages" && apt-get -c "$apt/apt.conf" -qq download "$1") >"$apt/log" 2>&1 || {
      sed 's/^/  /' "$apt/log" >&2
      fail "cannot download $1 (above); see whether the sources in /etc/apt can be reached"
    }
  fi
  [ -s "$packages/$name" ] || fail "apt-get downloaded $1, but not as $packages/$name; remove $folder and try again"
  echo "$packages/$name"
}

kernel_package=$(download "$kernel")
busybox_package=$(download busybox-static)

# ---- kernel -----------------------------------------------------------------------------------

work=$folder/work
rm -rf "$work"
mkdir -p "$work"

unpack() {
  dpkg-deb --fsys-tarfile "$1" >"$work/package.tar" || fail "cannot unpack $1; remove it and try again"
  tar -C "$work" -xf "$work/package.tar" "$2" || fail "no file $2 in $1"
  rm -f "$work/package.tar"
}

unpack "$kernel_package" "./boot/vmlinuz-${kernel#linux-image-}"
unpack "$busybox_package" ./bin/busybox
mv "$work/boot/vmlinuz-${kernel#linux-image-}" "$folder/vmlinuz"

# ---- first programs ---------------------------------------------------------------------------

# dmesg -n 1: a late line of the kernel must not land inside a line that someone waits for.
# reboot -f also when the shell ends: process 1 may not end, and the VM is then done.
cat >"$work/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=dumb
dmesg -n 1
console=/dev/ttyS0
[ -c "$console" ] || console=/dev/console
cd /root
echo "upcall-linux: shell ready" >"$console"
setsid sh -c "exec sh <$console >$console 2>&1"
reboot -f
INIT

# ---- archive: newc, as Linux's Documentation/driver-api/early-userspace/buffer-format.rst gives it ----

inode=0

# entry NAME MODE CONTENT-FILE: a header of 110 bytes, the name with its zero byte, the content, both padded to 4.
entry() {
  size=0
  [ -z "$3" ] || size=$(wc -c <"$3")
  inode=$((inode + 1))
  name_size=$((${#1} + 1))
  printf '070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x' \
    "$inode" "$2" 0 0 1 0 "$size" 0 0 0 0 "$name_size" 0
  printf '%s\000' "$1"
  pad $((110 + name_size))
  [ -z "$3" ] || cat "$3"
  pad "$size"
}

pad() {
  head -c $(((4 - $1 % 4) % 4)) /dev/zero
}

{
  for directory in bin dev proc root sys tmp; do
    entry "$directory" $((0040755)) ""
  done
  entry bin/busybox $((0100755)) "$work/bin/busybox"
  entry init $((0100755)) "$work/init"
  inode=-1
  entry TRAILER!!! 0 ""
} >"$work/initrd.cpio"
mv "$work/initrd.cpio" "$folder/initrd.cpio"
rm -rf "$work"

{
  echo "$stamp"
  basename "$kernel_package"
  basename "$busybox_package"
} >"$folder/complete.new"
mv "$folder/complete.new" "$folder/complete"
echo "fetch-linux-guest: $kernel, busybox-static: $folder"
