#!/bin/sh
# Put CRIU >= 4.2 under a private prefix (default .tools/criu); the machine's own libc and CRIU stay untouched.
# Usage: scripts/setup_criu.sh [PREFIX]       The binary to run is PREFIX/criu. Idempotent.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
prefix=${1:-$root/.tools/criu}
wanted=4.2

version_of() { "$1" --version 2>/dev/null | sed -n 's/^Version: //p'; }
new_enough() { [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$wanted" "$1" | sort -V | head -n 1)" = "$wanted" ]; }

if [ -x "$prefix/criu" ] && new_enough "$(version_of "$prefix/criu")"; then
    echo "criu $(version_of "$prefix/criu") is already in $prefix"
    exit 0
fi
if ! command -v mmdebstrap >/dev/null; then
    echo "CRIU can't be unpacked without mmdebstrap: run 'apt-get install -y mmdebstrap' (without CRIU only files mode works)" >&2
    exit 1
fi

mkdir -p "$(dirname -- "$prefix")"
work=$(mktemp -d "$prefix.XXXXXX")
trap 'rm -rf "$work"' EXIT

unpack() {
    mmdebstrap --variant=extract --include=criu --components=main "$@" sid "$work/root" >"$work/log" 2>&1
}
# A machine whose clock is ahead of the mirror's refuses its Release file as expired; only then is that check dropped.
if ! unpack; then
    if ! grep -q "is expired" "$work/log"; then cat "$work/log" >&2; exit 1; fi
    rm -rf "$work/root"
    unpack --aptopt='Acquire::Check-Valid-Until "false"' || { cat "$work/log" >&2; exit 1; }
fi
rm -rf "$work/root/usr/share" "$work/root/var" "$work/root/dev"

cat >"$work/criu" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")/root
for loader in "$here"/usr/lib/*-linux-gnu/ld-linux-*.so.*; do break; done
exec "$loader" --library-path "$(dirname "$loader")" "$here/usr/sbin/criu" "$@"
WRAPPER
chmod 0755 "$work/criu"

version=$(version_of "$work/criu")
if ! new_enough "$version"; then
    echo "Debian sid offers CRIU ${version:-(none)}, but Everlease needs $wanted or newer; only files mode works here" >&2
    exit 1
fi
rm -f "$work/log"
rm -rf "$prefix"
chmod 0755 "$work"
mv "$work" "$prefix"
trap - EXIT
echo "criu $version is in $prefix"
