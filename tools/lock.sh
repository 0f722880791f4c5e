#!/usr/bin/env bash
# Writes the three lock files: exact versions and hashes of every file, no addresses.
#   requirements.lock        what a base install needs
#   requirements-build.lock  what building Headgate itself needs, so that a build asks no network
#   requirements-dev.lock    everything that tests, checks and benchmarks need; a superset of both
# `make lock` keeps the versions that are locked; `make lock UPGRADE=--upgrade` takes the newest.
set -euo pipefail
cd "$(dirname "$0")/.."

UV=${UV:-uv}
compile() {
    "$UV" pip compile --quiet --universal --generate-hashes --python-version 3.11 \
        --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" "$@"
}

echo "-- requirements-dev.lock"
# shellcheck disable=SC2086
compile pyproject.toml --extra dev --output-file requirements-dev.lock ${UPGRADE:-}
echo "-- requirements.lock"
compile pyproject.toml --constraint requirements-dev.lock --output-file requirements.lock
echo "-- requirements-build.lock"
printf 'hatchling\neditables\n' | compile - --constraint requirements-dev.lock --output-file requirements-build.lock
for file in requirements.lock requirements-build.lock requirements-dev.lock; do
    if grep -nE 'https?://|file:' "$file"; then
        echo "$file holds an address: it must work with any index." >&2
        exit 1
    fi
    echo "   $file: $(grep -c '^[a-z].*==' "$file") lines of versions"
done
