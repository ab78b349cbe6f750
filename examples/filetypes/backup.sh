#!/bin/sh
# Copy a directory to a dated archive and keep the last seven.
set -eu

source_dir=${1:?usage: backup.sh DIRECTORY TARGET}
target_dir=${2:?usage: backup.sh DIRECTORY TARGET}
stamp=$(date +%Y-%m-%d)

if [ ! -d "$source_dir" ]; then
    echo "no directory $source_dir" >&2
    exit 1
fi

mkdir -p "$target_dir"
tar -czf "$target_dir/$stamp.tar.gz" -C "$source_dir" .

ls -1 "$target_dir" | sort -r | tail -n +8 | while read -r old; do
    rm -f "$target_dir/$old"
done
echo "kept $(ls -1 "$target_dir" | wc -l) archives"
