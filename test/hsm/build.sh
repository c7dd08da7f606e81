#!/usr/bin/env bash
# Builds what the tests of test/hsm run: a User-Mode Linux kernel with Linux's ACRN driver, and programs that use it.
#
#   test/hsm/build.sh [FOLDER]      FOLDER is .cache/hsm in the project unless given
#
# The kernel is Debian's source package linux-source-6.1 with the glue of test/hsm/uml-glue. It lands in
# FOLDER/<version>-<key>, where the key follows from the glue, the configuration and this script, and FOLDER/current
# leads there. A cold build takes minutes and 2 GB for a while, a later one nothing.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$here/../../.cache/hsm}
package=linux-source-6.1

fail() {
  echo "test/hsm/build.sh: $1" >&2
  exit 1
}

mkdir -p "$folder" || fail "cannot make the folder $folder; give one that you may write to"
folder=$(cd "$folder" && pwd)
exec 9>"$folder/lock"
flock 9

[ "$(uname -sm)" = "Linux x86_64" ] || fail "User-Mode Linux is built on Linux on x86-64 only; this is $(uname -sm)"
missing=()
for tool in bc bison dpkg-query flex flock gcc make tar xz; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
[ "${#missing[@]}" -eq 0 ] ||
  fail "not found: ${missing[*]}; as root: apt-get install bc bison flex gcc libc6-dev linux-libc-dev make xz-utils"

# ---- source -----------------------------------------------------------------------------------

# An installed package is used as it is. Without one, apt fetches the newest, which needs package lists but no root.
version=$(dpkg-query --show --showformat='${Version}' "$package" 2>/dev/null) || version=
installed=/usr/src/$package.tar.xz
if [ -z "$version" ] || [ ! -r "$installed" ]; then
  version=$(apt-cache show --no-all-versions "$package" 2>/dev/null | awk '$1 == "Version:" { print $2; exit }')
  [ -n "$version" ] ||
    fail "$package is neither installed nor in apt's lists; as root: apt-get update && apt-get install $package"
  installed=
fi

key=$(cat "$here/build.sh" "$here/uml.config" "$here"/uml-glue/*.c "$here"/uml-glue/asm/*.h | sha256sum | cut -c 1-16)
target=$folder/$version-$key

unpack() {
  # Of other architectures only Kconfig and crypto/Kconfig are read, of the documentation nothing.
  local arch exclude=(--exclude="$package/Documentation/*/*" --exclude="$package/tools/testing")
  for arch in alpha arc arm arm64 csky hexagon ia64 loongarch m68k microblaze mips nios2 openrisc parisc powerpc riscv \
    s390 sh sparc xtensa; do
    exclude+=(--exclude="$package/arch/$arch/[!Kc]*")
  done
  tar --extract --xz --strip-components=1 --directory="$1" "${exclude[@]}"
}

source_to() {
  if [ -n "$installed" ]; then
    unpack "$1" <"$installed"
    return
  fi
  echo "test/hsm/build.sh: downloading $package $version" >&2
  mkdir -p "$folder/download"
  (cd "$folder/download" && apt-get -qq -o APT::Sandbox::User= download "$package=$version") ||
    fail "cannot download $package $version; as root: apt-get update && apt-get install $package"
  dpkg-deb --fsys-tarfile "$folder/download"/*.deb | tar --extract --to-stdout "./usr/src/$package.tar.xz" | unpack "$1"
  rm -rf "$folder/download"
}

# ---- kernel -----------------------------------------------------------------------------------

build_kernel() {
  local tree=$folder/tree log=$folder/build.log driver
  rm -rf "$tree" "$target"
  mkdir -p "$tree"
  echo "test/hsm/build.sh: building the kernel of $package $version; this takes minutes"
  source_to "$tree"
  driver=$tree/drivers/virt/acrn

  cp "$here"/uml-glue/asm/*.h "$tree/arch/um/include/asm/"
  cp "$here/uml-glue/uml-glue.c" "$driver/"
  # The driver belongs to x86 under ACRN; here it belongs to User-Mode Linux with the glue.
  sed -i 's/^\tdepends on ACRN_GUEST$/\tdepends on UML/' "$driver/Kconfig"
  grep -q 'depends on UML' "$driver/Kconfig" || fail "$driver/Kconfig is not as this script knows it: no ACRN_GUEST"
  sed -i 's/^\(acrn-y *:= .*\)$/\1 uml-glue.o/' "$driver/Makefile"
  grep -q 'uml-glue.o' "$driver/Makefile" || fail "$driver/Makefile is not as this script knows it: no acrn-y"

  {
    make -C "$tree" ARCH=um KCONFIG_ALLCONFIG="$here/uml.config" allnoconfig &&
      make -C "$tree" ARCH=um -j"$(nproc)" linux
  } >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    fail "the kernel did not build; $log has all of it"
  }
  while read -r option; do
    grep -qx "$option" "$tree/.config" || fail "the kernel was configured without $option, which uml.config asks for"
  done < <(grep '^CONFIG_.*=[y"]' "$here/uml.config")

  # The tree is large, and these are all that is needed of it.
  mkdir -p "$target/driver"
  cp "$driver"/*.c "$driver"/*.h "$target/driver/"
  cp "$tree/samples/acrn/vm-sample.c" "$tree/.config" "$target/"
  strip --strip-debug -o "$target/linux.new" "$tree/linux"
  mv "$target/linux.new" "$target/linux"
  rm -rf "$tree"
}

[ -x "$target/linux" ] || build_kernel
ln -sfn "$(basename "$target")" "$folder/current"
# What older versions of these files built.
find "$folder" -mindepth 1 -maxdepth 1 -type d ! -path "$target" -exec rm -rf {} +

# ---- programs ---------------------------------------------------------------------------------

# Static: inside, the machine that runs them has just begun.
compile() {
  local program=$target/$1 stamp
  shift
  stamp=$(cat "$@" | sha256sum)
  [ -x "$program" ] && [ "$(cat "$program.sum" 2>/dev/null)" = "$stamp" ] && return
  gcc -O1 -g0 -static -pthread -o "$program" "$@" 2>"$program.log" || {
    cat "$program.log" >&2
    fail "$1 did not compile"
  }
  echo "$stamp" >"$program.sum"
  rm -f "$program.log"
}

compile init "$here/clients/init.c"
compile vm-sample "$target/vm-sample.c" "$here/clients/guest16.S"
[ ! -e "$here/clients/scenarios.c" ] || compile scenarios "$here/clients/scenarios.c" "$here/clients/guest16.S"

echo "test/hsm/build.sh: $target"
