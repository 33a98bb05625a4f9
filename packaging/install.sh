#!/bin/sh
# Installs a released qualm: fetches the archive for this system, holds it against the release's SHA256SUMS,
# and puts the program into a folder.
#
#   curl -fsSL https://github.com/qualm-dev/qualm/releases/latest/download/install.sh | sh
#
# QUALM_VERSION      which release, such as 0.1.0 (default: the latest)
# QUALM_INSTALL_DIR  where to (default: ~/.local/bin)
# QUALM_BASE_URL     where releases are, for a mirror (default: the project's releases)
# QUALM_TARGET       which program (default: the one for this system)
set -eu

say() { printf 'qualm: %s\n' "$1" >&2; }
fail() {
    say "$1"
    exit 1
}

fetch() { # URL FILE
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"
    elif command -v wget >/dev/null; then
        wget --quiet --tries=3 --output-document="$2" "$1"
    else
        fail "neither curl nor wget is here to download with"
    fi || fail "cannot download $1"
}

sha256() { # FILE
    if command -v sha256sum >/dev/null; then
        sha256sum "$1"
    elif command -v shasum >/dev/null; then
        shasum --algorithm 256 "$1"
    else
        fail "neither sha256sum nor shasum is here to verify the download with"
    fi | cut -d ' ' -f 1
}

# The program for this system. On Linux, the one for glibc where that is 2.17 or newer, or else the static one.
target() {
    system=$(uname -s)
    machine=$(uname -m)
    case $machine in
    x86_64 | amd64) machine=x86_64 ;;
    aarch64 | arm64) machine=aarch64 ;;
    *) fail "there is no program for $machine; build one: cargo install --locked qualm" ;;
    esac
    case $system in
    Linux)
        libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)
        minor=${libc#glibc 2.}
        minor=${minor%%.*}
        case $minor in
        '' | *[!0-9]*) echo "$machine-unknown-linux-musl" ;;
        *) if [ "$minor" -ge 17 ]; then echo "$machine-unknown-linux-gnu"; else echo "$machine-unknown-linux-musl"; fi ;;
        esac
        ;;
    Darwin) echo "$machine-apple-darwin" ;;
    MINGW* | MSYS* | CYGWIN*)
        [ "$machine" = x86_64 ] || fail "there is no program for Windows on $machine"
        echo x86_64-pc-windows-msvc
        ;;
    *) fail "there is no program for $system; build one: cargo install --locked qualm" ;;
    esac
}

# Everything in a function: a script that is cut short while it is piped into a shell does nothing.
main() {
    base=${QUALM_BASE_URL:-https://github.com/qualm-dev/qualm/releases}
    version=${QUALM_VERSION:-latest}
    case $version in
    latest) release=$base/latest/download ;;
    *) release=$base/download/v${version#v} ;;
    esac
    target=${QUALM_TARGET:-$(target)}
    case $target in
    *-windows-*) archive=qualm-$target.zip program=qualm.exe ;;
    *) archive=qualm-$target.tgz program=qualm ;;
    esac
    folder=${QUALM_INSTALL_DIR:-${HOME:?is not set, so QUALM_INSTALL_DIR has to be}/.local/bin}

    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    fetch "$release/SHA256SUMS" "$work/SHA256SUMS"
    fetch "$release/$archive" "$work/$archive"
    wanted=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]$archive\$/\1/p" "$work/SHA256SUMS")
    [ -n "$wanted" ] || fail "$release/SHA256SUMS does not name $archive"
    found=$(sha256 "$work/$archive")
    [ "$found" = "$wanted" ] || fail "$archive has the SHA-256 $found, the release says $wanted: nothing was installed"

    case $archive in
    *.zip) unzip -q "$work/$archive" -d "$work" ;;
    *) tar -xzf "$work/$archive" -C "$work" ;;
    esac || fail "$archive cannot be unpacked"
    new=$work/qualm-$target/$program
    [ -f "$new" ] || fail "$archive holds no $program"
    mkdir -p "$folder"
    # Beside its place first, then renamed: there is never half a program there, nor one that is being run.
    cp "$new" "$folder/.$program.$$"
    chmod 755 "$folder/.$program.$$"
    mv -f "$folder/.$program.$$" "$folder/$program"
    say "installed $("$folder/$program" --version) as $folder/$program"
    case :$PATH: in
    *:"$folder":*) ;;
    *) say "$folder is not on the PATH: export PATH=\"$folder:\$PATH\"" ;;
    esac
}

main "$@"
