#!/usr/bin/env bash
# Makes the secrets of a cluster, each in a file that only its owner reads. What is there stays.
#
#   infra/secrets.sh FOLDER
#
# ray_token: whom Ray takes in.  postgres_password: of the user bhnbench.  pgpass: the same for libpq.
set -euo pipefail
umask 077

folder="${1:?usage: infra/secrets.sh FOLDER}"
mkdir -p "$folder"
random() { python3 -c 'import secrets; print(secrets.token_hex(32), end="")'; }

[ -e "$folder/ray_token" ] || random >"$folder/ray_token"
[ -e "$folder/postgres_password" ] || random >"$folder/postgres_password"
printf '*:*:*:bhnbench:%s\n' "$(cat "$folder/postgres_password")" >"$folder/pgpass"
echo "secrets in $folder; they belong in no repository"
