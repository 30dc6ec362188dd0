#!/usr/bin/env bash
# Builds the wheel into target/wheels: three minutes on two free cores, seconds when the release binary is up to date.
#
# Needs Rust, a C compiler, Python 3.10+ and PyPI (for maturin, kept under target/). `cargo test --test deploy` tries the
# wheel that it finds there.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
maturin_version=1.16.0
tools="$target/deploy/maturin-$maturin_version"
# A file of a Databricks App may be no larger.
bytes_max=$((10 * 1024 * 1024))

if [ ! -x "$tools/bin/maturin" ]; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
        "maturin==$maturin_version"
fi

mkdir -p "$target/wheels"
rm -f "$target"/wheels/valetkey-*.whl "$target/wheels/sources.sha256"
# By this the test knows whether the wheel is one of the sources that it sees.
sources=$(find src config Cargo.toml Cargo.lock deploy/wheel/pyproject.toml -type f | LC_ALL=C sort | xargs cat | sha256sum)
(cd deploy/wheel && "$tools/bin/maturin" build --release --target-dir "$target" --out "$target/wheels")
printf '%s\n' "${sources%% *}" > "$target/wheels/sources.sha256"

for file in "$target/release/valetkey" "$target"/wheels/valetkey-*.whl; do
    bytes=$(stat -c %s "$file")
    [ "$bytes" -le "$bytes_max" ] || { echo "$file has $bytes bytes, a Databricks App takes $bytes_max"; exit 1; }
    printf '%9d bytes  %s\n' "$bytes" "$file"
done
