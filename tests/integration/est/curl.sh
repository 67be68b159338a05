#!/usr/bin/env bash
# EST with nothing but curl and openssl. Usage: curl.sh URL CA.pem DEVICE-ROOT.pem DEVICE TOKEN OTHER
# Prints a line for each assertion that fails, and ends with 1 if there was one.
set -uo pipefail
base=$1/.well-known/est ca=$2 root=$3 device=$4 token=$5 other=$6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

is() { [ "$2" = "$3" ] || { echo "$1: $2 instead of $3"; failed=1; }; }
http() { # OPERATION [CURL OPTION]...: the status; the body is in `body`
  local operation=$1
  shift
  curl -sS --max-time 10 --cacert "$ca" -o body -w '%{http_code}' "$@" "$base/$operation" 2>errors
}
post() { local operation=$1 file=$2; shift 2; http "$operation" -H 'Content-Type: application/pkcs10' --data-binary "@$file" "$@"; }
certificates() { openssl base64 -d -A | openssl pkcs7 -inform DER -print_certs; }
request() { openssl req -new -key "$1" -subj "/CN=$2" -outform DER | openssl base64 >"$3"; }
key() { openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:$1" -out "$2" 2>/dev/null; }

key P-256 device.key
key P-256 next.key
key P-224 weak.key
request device.key "$device" first.p10
request next.key "$device" next.p10
request next.key "$other" spoofed.p10
request weak.key "$device" weak.p10
head -c 100 first.p10 >short.p10
head -c 20000 /dev/zero >long.p10

is 'cacerts' "$(http cacerts)" 200
is 'cacerts holds three' "$(certificates <body | tee ca-certs.pem | grep -c 'BEGIN CERT')" 3
is 'csrattrs' "$(http csrattrs)" 200
is 'csrattrs names P-256' "$(openssl base64 -d -A <body | openssl asn1parse -inform DER | grep -c prime256v1)" 1
is 'enrol without authentication' "$(post simpleenroll first.p10)" 401
is 'enrol with a bad token' "$(post simpleenroll first.p10 -u "$device:wrong")" 401
is 'enrol with a weak key' "$(post simpleenroll weak.p10 -u "$device:$token")" 400
is 'enrol with a request cut short' "$(post simpleenroll short.p10 -u "$device:$token")" 400
is 'enrol with a request too long' "$(post simpleenroll long.p10 -u "$device:$token")" 413
is 'enrol as somebody else' "$(post simpleenroll spoofed.p10 -u "$device:$token")" 403
is 'enrol' "$(post simpleenroll first.p10 -u "$device:$token")" 200
certificates <body >device.pem
is 'openssl verifies it' "$(openssl verify -x509_strict -purpose sslclient -CAfile "$root" -untrusted ca-certs.pem device.pem 2>&1)" 'device.pem: OK'
is 'its key is ours' "$(openssl x509 -in device.pem -noout -pubkey)" "$(openssl pkey -in device.key -pubout)"
is 'its subject is the device' "$(openssl x509 -in device.pem -noout -subject)" "subject=CN = $device"
is 'the same again after a lost reply' "$(post simpleenroll first.p10 -u "$device:$token")" 200
is 'which is the same certificate' "$(certificates <body)" "$(cat device.pem)"
is 'the token with another key' "$(post simpleenroll next.p10 -u "$device:$token")" 401
mutual=(--cert device.pem --key device.key)
is 're-enrol without a certificate' "$(post simplereenroll next.p10)" 401
is 're-enrol as somebody else' "$(post simplereenroll spoofed.p10 "${mutual[@]}")" 403
is 're-enrol' "$(post simplereenroll next.p10 "${mutual[@]}")" 200
certificates <body >next.pem
is 'the new certificate is proven' "$(http cacerts --cert next.pem --key next.key)" 200
is 'serverkeygen' "$(post serverkeygen first.p10 --cert next.pem --key next.key)" 200
tr -d '\r' <body | awk '/^--/ { part++; next } part == 1 && /^M/' | openssl base64 -d -A | openssl pkey -inform DER -pubout -out made.pub
tr -d '\r' <body | awk '/^--/ { part++; next } part == 2 && /^M/' | certificates >made.pem
is 'the made key fits' "$(cat made.pub)" "$(openssl x509 -in made.pem -noout -pubkey)"
is 'TLS 1.1' "$(curl -sS --tls-max 1.1 --cacert "$ca" "$base/cacerts" >/dev/null 2>&1; echo $?)" 35
exit $failed
