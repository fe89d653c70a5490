#!/bin/sh
# Makes the certificates of this folder anew, for tests alone: two authorities, a server and a client of each.
set -eu
cd "$(dirname "$0")"
for authority in first second; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj "/CN=$authority" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
        -keyout authority.tmp -out "$authority.crt"
    for use in server client; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj "/CN=$use" \
            -addext basicConstraints=critical,CA:FALSE -addext "extendedKeyUsage=${use}Auth" \
            -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
            -CA "$authority.crt" -CAkey authority.tmp -keyout "$authority-$use.key" -out "$authority-$use.crt"
    done
    rm authority.tmp
done
