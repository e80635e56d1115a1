#!/usr/bin/env bash
# Builds the program for other machines into target/dist: one static file with the pages inside, the
# licences of all that it contains, a bill of materials, checksums, completions of shells and man
# pages. The pages must have been built.
#
#   scripts/dist.sh          builds it
#   scripts/dist.sh check    builds it once more in another folder, and compares the bytes
set -euo pipefail
cd "$(dirname "$0")/.."

dist=target/dist
site=target/release/site
host=$(rustc -vV | sed -n 's/^host: //p')
musl=$(uname -m)-unknown-linux-musl

case $PWD${CARGO_HOME:-$HOME/.cargo} in *[[:space:]]*)
    echo 'dist: the paths of this folder and of cargo must not have spaces: move it, or set CARGO_HOME' >&2
    exit 1
    ;;
esac

# Paths of this machine are in panic messages and in __FILE__ of C. Without them, the same sources
# give the same bytes in every folder.
short=(--remap-path-prefix="$PWD=/waterclock" --remap-path-prefix="${CARGO_HOME:-$HOME/.cargo}=/cargo")
short_c="-ffile-prefix-map=$PWD=/waterclock -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo"
# The time of the build is in C, by __TIME__, which compilers take from here.
export SOURCE_DATE_EPOCH=315532800

if [ "${1:-}" = check ]; then
    # Set-up may have chosen the toolchain for this folder only.
    if command -v rustup >/dev/null; then
        RUSTUP_TOOLCHAIN=$(rustup show active-toolchain | cut -d ' ' -f 1)
        export RUSTUP_TOOLCHAIN
    fi
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$folder" 2>/dev/null || true
    ln -s "$PWD/scripts/pages/node_modules" "$folder/scripts/pages/node_modules"
    (cd "$folder" && node scripts/pages/build.mjs "$site" && scripts/dist.sh)
    for file in waterclock waterclock.cdx.json LICENSES.txt; do
        cmp "$dist/$file" "$folder/$dist/$file" || {
            echo "dist: $file differs between two folders" >&2
            exit 1
        }
    done
    echo 'dist: a build in another folder gives the same bytes'
    exit
fi

target=$musl
reason=
mkdir -p "$dist"
rm -f "$dist/.needs-libraries"
if [ "$(uname -s)" != Linux ]; then
    reason='this system is not Linux'
elif ! command -v musl-gcc >/dev/null; then
    reason="musl's C compiler, musl-gcc, is missing"
elif [ ! -e "$(rustc --print target-libdir --target "$musl")" ]; then
    reason="Rust's library for $musl is missing"
fi
if [ "$reason" ]; then
    target=$host
    echo "dist: $reason: the program will need this system's C library"
    # Until there is a static program, each `make dist` tries again.
    touch "$dist/.needs-libraries"
fi

begun=$SECONDS
variable=$(tr a-z- A-Z_ <<<"$target")
echo "dist: building $dist/waterclock for $target (some minutes the first time)"
export "CARGO_TARGET_${variable}_RUSTFLAGS=${short[*]}" "CFLAGS_${target//-/_}=$short_c"
LEPTOS_SITE_ROOT=$site MEMORY_SERVE_QUIET=1 \
    cargo build --quiet --locked --release --package server --features embed --target "$target"
# A new file, because a program that runs cannot be overwritten.
install "target/$target/release/waterclock" "$dist/waterclock"
node scripts/notices.mjs "$target" "$dist"
mkdir -p "$dist/completions"
for shell in bash zsh fish; do
    "$dist/waterclock" completions $shell >"$dist/completions/waterclock.$shell"
done
"$dist/waterclock" man "$dist/man"
(cd "$dist" && sha256sum waterclock waterclock.cdx.json LICENSES.txt >SHA256SUMS)
bytes=$(wc -c <"$dist/waterclock")
echo "dist: $dist/waterclock has $((bytes / 1000)) kB ($((SECONDS - begun)) s)"
# What the parts of the program may add up to, since people download it.
if [ "$bytes" -gt 25000000 ]; then
    echo 'dist: the program is over its limit, 25,000 kB' >&2
    exit 1
fi
