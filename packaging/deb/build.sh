#!/usr/bin/env bash
# Makes the Debian package of the server, with the same bytes at each build of the same program.
#
#   packaging/deb/build.sh PROGRAM FOLDER [VERSION]
#
# The manual pages, completions and notices of target/dist come along if they are there. Prints the
# file's name. DEB_COMPRESSION has an option of dpkg-deb, for tests: -Znone
set -euo pipefail
cd "$(dirname "$0")/../.."

program=$1 folder=$2
version=${3:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}
fail() { printf 'deb: %s\n' "$@" >&2; exit 1; }
[ -x "$program" ] || fail "$program is not there: run make dist"
command -v dpkg-deb >/dev/null || fail 'dpkg-deb is not there: install the package dpkg'
# Bytes 18 and 19 of an ELF file name the machine.
case $(od -An -tu2 -j18 -N2 "$program" | tr -d ' ') in
62) arch=amd64 ;;
183) arch=arm64 ;;
*) fail "$program is not a program for x86-64 or ARM of 64 bits" ;;
esac

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }
put 755 "$program" usr/bin/waterclock
put 644 packaging/deb/waterclock.service usr/lib/systemd/system/waterclock.service
put 644 packaging/deb/waterclock.socket usr/lib/systemd/system/waterclock.socket
put 644 packaging/deb/sysusers.conf usr/lib/sysusers.d/waterclock.conf
put 644 packaging/deb/config.toml etc/waterclock/config.toml
documents=usr/share/doc/waterclock
{ printf 'Waterclock is licensed under MIT or Apache-2.0, at your choice.\n\n'; cat LICENSE-MIT; } >"$root/copyright"
put 644 "$root/copyright" $documents/copyright
rm "$root/copyright"
put 644 LICENSE-APACHE $documents/LICENSE-APACHE
if [ -f target/dist/LICENSES.txt ]; then put 644 target/dist/LICENSES.txt $documents/LICENSES.txt; fi
complete() { if [ -f "target/dist/completions/waterclock.$1" ]; then put 644 "target/dist/completions/waterclock.$1" "$2"; fi; }
complete bash usr/share/bash-completion/completions/waterclock
complete zsh usr/share/zsh/vendor-completions/_waterclock
complete fish usr/share/fish/vendor_completions.d/waterclock.fish
for page in target/dist/man/*.1; do
    [ -f "$page" ] || continue
    put 644 "$page" "usr/share/man/man1/${page##*/}"
    gzip -9n "$root/usr/share/man/man1/${page##*/}"
done

# A program that is not static needs the C library of this machine or a later one.
depends=
if ldd "$program" 2>/dev/null | grep -q ' => /'; then
    depends="Depends: libc6 (>= $(getconf GNU_LIBC_VERSION | sed 's/.* //')), libgcc-s1"
fi
mkdir "$root/DEBIAN"
for script in preinst postinst prerm postrm; do put 755 packaging/deb/$script DEBIAN/$script; done
echo /etc/waterclock/config.toml >"$root/DEBIAN/conffiles"
{
    printf '%s\n' 'Package: waterclock' "Version: $version" "Architecture: $arch" \
        'Maintainer: The Waterclock maintainers <waterclock@localhost>' \
        "Installed-Size: $(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)"
    if [ "$depends" ]; then printf '%s\n' "$depends"; fi
    printf '%s\n' 'Recommends: systemd' 'Section: net' 'Priority: optional' \
        'Description: live-event server over Server-Sent Events' \
        ' Waterclock streams events to browsers and programs, and keeps them in a file, so' \
        ' that a client that reconnects continues exactly where it ended.'
} >"$root/DEBIAN/control"
(cd "$root" && find usr etc -type f | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
find "$root" -type d -exec chmod 755 {} +

mkdir -p "$folder"
file=$folder/waterclock_${version}_$arch.deb
# All files get this time, and the archive's members, too.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group ${DEB_COMPRESSION:--Zxz} --build "$root" "$file" >/dev/null
echo "$file"
