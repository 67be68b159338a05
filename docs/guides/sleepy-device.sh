#!/bin/sh
# A device of a fleet, made of sh, mosquitto_sub, mosquitto_pub, curl, openssl, jq and od: see sleepy-device.md.
# sleepy-update.sh and sleepy-device.jq lie beside it.
#
#   sleepy-device.sh BUNDLE STATE [boot | wake | run]
#
# `boot` is the moment the power comes on, `wake` one turn on the broker, `run` a boot and then a wake every heartbeat.
# It sleeps in between, so one client id serves both mosquitto_sub and mosquitto_pub, which take turns on it.
#
# LISTEN     how many seconds of a wake it listens (2)
# SLOT_SIZE  how many bytes a slot holds (67108864)
# shellcheck disable=SC2015,SC2016,SC2119,SC2120 # jq's variables are not the shell's; `a && b || c` is meant so
set -u
umask 077
LC_ALL=C
export LC_ALL

LISTEN=${LISTEN:-2}
SESSION_SECONDS=604800 # how long the broker keeps commands for a sleeper
PAYLOAD_LIMIT=131072   # bytes of any payload
SIGNED_LIMIT=16384     # bytes of what is signed: 64 keys are 6 kB
SEEN_LIMIT=1000        # commands of one session
FACTORY_VERSION=1.0.0
NEWLINE='
'

say() { printf '%s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
drop() { # what does not parse or is not trusted is counted and changes nothing
    echo $(($(cat "$state/dropped") + 1)) | keep "$state/dropped"
    say "dropped: $1"
}

# ------------------------------------------------------------------------------------------------ bytes and files

LIB='include "sleepy-device";'
lib() { # lib FILTER [OPTIONS]: jq with what sleepy-device.jq defines
    filter=$1
    shift
    jq -c -L "$here" "$@" "$LIB $filter" 2>"$tmp/why"
}
bytes_of() { od -An -v -tu1 "$1" | jq -sc .; }
sha256() { openssl dgst -sha256 -r "$1" | { read -r hash _ && printf %s "$hash"; }; }
size_of() { if [ -f "$1" ]; then echo $(($(wc -c <"$1"))); else echo 0; fi; }
keep() { # keep FILE: standard input becomes FILE, whole or not at all
    cat >"$1.new" && { sync "$1.new" 2>/dev/null || sync; } && mv "$1.new" "$1"
}
clock() { # Unix seconds, or null while nobody has set the clock
    seconds=$(date +%s)
    if [ "$seconds" -gt 1700000000 ]; then echo "$seconds"; else echo null; fi
}
timestamp() { if [ "$(clock)" = null ]; then echo null; else date -u '+"%Y-%m-%dT%H:%M:%S.000Z"'; fi; }

# ------------------------------------------------------------------------------------------------ what is remembered
# One record, replaced whole: power may fail between any two lines of this script.

get() { jq -r "$1" "$state/record.json"; }
change() { # change FILTER [OPTIONS]
    filter=$1
    shift
    jq -c "$@" "$filter" "$state/record.json" >"$tmp/record" && keep "$state/record.json" <"$tmp/record"
}
step() { # step PHASE [CODE] [DETAIL] [FILTER] [OPTIONS]: the next step of the attempt, in one write, and the report of it
    step_phase=$1 step_code=${2:-} step_detail=${3:-} step_filter=${4:-.}
    if [ $# -gt 4 ]; then shift 4; else shift $#; fi
    jq -c --arg phase "$step_phase" --arg code "$step_code" --arg detail "$step_detail" --argjson at "$(timestamp)" "$@" \
        '.attempt.step += 1 | .attempt.phase = $phase | .attempt.code = (if $code == "" then null else $code end)
        | .attempt.detail = (if $detail == "" then null else $detail[:500] end) | '"$step_filter | ., $REPORT" \
        "$state/record.json" >"$tmp/step"
    settle
}
settle() { # the record and its report, as $tmp/step has them
    { read -r record && read -r line; } <"$tmp/step" || die "the record cannot be written"
    printf '%s\n' "$record" | keep "$state/record.json" || die "the record cannot be written"
    printf '%s\n' "$line" >>"$state/unsent"
    say "update $step_phase $step_code $step_detail"
}
REPORT='(. as $r | .attempt | {rolloutId, order, attempt: .number, step, phase, code, progress, from, to: .image.version, manifest,
    slot, boot: $r.boot, acceptedBoot, timestamp: $at, detail})'
slot() { printf '%s/slot-%s.img' "$state" "$1"; }

# ------------------------------------------------------------------------------------------------ the broker, in turns
# -c on both: without it mosquitto_pub would end the session, and with it the subscriptions and what is queued for the sleeper.

client() { # client sub|pub OPTIONS
    tool=$1
    shift
    "mosquitto_$tool" -V 5 -h "$host" -p "$port" -i "$id" -c -x "$SESSION_SECONDS" -q 1 --tls-version tlsv1.3 \
        --cafile "$bundle/ca.pem" --cert "$bundle/device.pem" --key "$bundle/device.key" "$@" 2>"$tmp/client"
}
publish() { # publish TOPIC [-r]: each line of standard input is a message
    lines=$(cat)
    case $lines in
    *"$NEWLINE"*) printf '%s\n' "$lines" | client pub -t "$1" ${2:+"$2"} -l ;; # takes 0.2 s, ten times as long as -s
    *) printf %s "$lines" | client pub -t "$1" ${2:+"$2"} -s ;;
    esac
}
listen() { # hear what waits for us and what is retained
    rm -f "$tmp/shown" "$tmp/trust.hex" "$tmp/twin.hex" "$tmp/ota.hex"
    client sub -W "$LISTEN" -F '%x:%t' -t "$tenant/_fleet/trust" -t "$base/twin/desired" -t "$base/ota/desired" \
        -t "$base/commands/+" -t "$base/status" >"$tmp/heard"
    [ $? -eq 27 ] || { # 27: the time was up, as it was to be
        say "not connected: $(cat "$tmp/client")"
        return 1
    }
}
online() { # presence: the digest is that of the image that runs, hashed now
    image=$(slot "$(get .running)")
    jq -c --arg status "${1:-online}" --arg digest "sha256:$(sha256 "$image")" --argjson at "$(timestamp)" --argjson heartbeat "$(interval)" \
        '{status: $status, session: "\(.boot)-1", firmwareVersion: .images[.running].version, digest: $digest,
          clock: (if $at == null then "none" else "set" end), heartbeat: $heartbeat, connectedAt: $at, timestamp: $at}' \
        "$state/record.json" | publish "$base/status" -r
}
interval() { # seconds between two wakes: the twin's, else the bundle's
    { cat "$state/twin.json" 2>/dev/null || echo '{}'; } |
        jq --argjson usual "$heartbeat" '.desired.reportingInterval | if type == "number" and . >= 1 and . <= 86400 then . else $usual end'
}
flush() { # reports that the broker has acknowledged are forgotten; the last one is said again where it may have been lost
    last=$(get 'if .attempt == null then "" else .attempt | "\(.rolloutId) \(.number) \(.step)" end')
    if [ ! -s "$state/unsent" ] && [ "$last" != "$(cat "$state/told" 2>/dev/null)" ]; then
        jq -c --argjson at "$(timestamp)" "$REPORT" "$state/record.json" >>"$state/unsent"
    fi
    [ -s "$state/unsent" ] || return 0
    publish "$base/ota/status" -r <"$state/unsent" || return 1
    jq -rs 'last | "\(.rolloutId) \(.attempt) \(.step)"' "$state/unsent" | keep "$state/told"
    rm -f "$state/unsent"
}

# ------------------------------------------------------------------------------------------------ what it hears

take() { # act on what was heard: trust first, because it says who may sign the rest; of retained topics the last counts
    lost=true
    : >"$tmp/commands"
    while IFS=: read -r hex topic; do
        case $hex in '' | *[!0-9a-f]*) continue ;; esac
        if [ ${#hex} -gt $((PAYLOAD_LIMIT * 2)) ]; then
            drop "a payload that is too long"
            continue
        fi
        case $topic in
        "$tenant/_fleet/trust") printf '"%s"' "$hex" >"$tmp/trust.hex" ;;
        "$base/twin/desired") printf '"%s"' "$hex" >"$tmp/twin.hex" ;;
        "$base/ota/desired") printf '"%s"' "$hex" >"$tmp/ota.hex" ;;
        "$base/status") lost=false ;; # the broker still has what we said last
        "$base/commands/"*) printf '%s:%s\n' "$hex" "${topic#"$base/commands/"}" >>"$tmp/commands" ;;
        *) drop "a message on a topic that was not subscribed" ;;
        esac
    done <"$tmp/heard"
    if [ -f "$tmp/trust.hex" ]; then on_trust; fi
    while IFS=: read -r hex name; do on_command "$name" "$hex"; done <"$tmp/commands"
    if [ -f "$tmp/twin.hex" ]; then on_twin; fi
    if [ -f "$tmp/ota.hex" ]; then on_update; fi
    if $lost; then rm -f "$state/told"; fi
    report_twin
}
same() { cmp -s "$1" "$2" 2>/dev/null; } # what is heard at every wake is looked at once
short() { [ "$(size_of "$1")" -le $((SIGNED_LIMIT * 2)) ]; }

on_trust() {
    if same "$tmp/trust.hex" "$state/trust.hex"; then return; fi
    short "$tmp/trust.hex" && lib bytes_of_hex <"$tmp/trust.hex" >"$tmp/candidate" && read_trust "$tmp/candidate" || {
        drop "a trust document that our root key did not sign"
        return
    }
    if newer_trust; then
        keep "$state/trust.json" <"$tmp/candidate"
        hold_trust
        say "trust $(jq .version "$tmp/trust")"
    fi
    keep "$state/trust.hex" <"$tmp/trust.hex"
}

on_command() { # on_command NAME HEX
    case $1 in '' | *[!A-Za-z0-9._-]*) drop "a command without a name" && return ;; esac
    [ ${#1} -le 32 ] || return 0
    printf '%b' "$(printf '"%s"' "$2" | lib 'bytes_of_hex | escaped' -r)" >"$tmp/command"
    session=$(get '"\(.boot)-1"')
    lib 'if length != 1 then fail("not one document") else .[0] end
        | if .id | type == "string" and test("\\A[A-Za-z0-9][A-Za-z0-9._+:-]{0,63}\\z") then . else fail("no id") end
        | if (.session | type) == "string" and (.args // {} | type) == "object" then . else fail("a member") end
        | .id, .session == $session, (if .expires == null then false else .expires | seconds | $now != null and $now > . end)' \
        -rs --arg session "$session" --argjson now "$(clock)" <"$tmp/command" >"$tmp/called" || {
        drop "a command that is none"
        return
    }
    { read -r command_id && read -r meant && read -r expired; } <"$tmp/called"
    $meant || return 0
    while read -r known; do [ "$known" = "$command_id" ] && return; done <"$state/seen"
    [ "$(wc -l <"$state/seen")" -lt "$SEEN_LIMIT" ] || {
        drop "a command too many for one session"
        return
    }
    printf '%s\n' "$command_id" >>"$state/seen"
    say "command $1 $command_id"
    if $expired; then
        answer rejected '{"error":"the command has expired"}' | publish "$base/commands/$1/reply"
    elif [ "$1" = ping ]; then
        facts=$(facts | jq -c --arg session "$session" --argjson dropped "$(cat "$state/dropped")" '. + {$session, $dropped}')
        { answer accepted null && answer succeeded "$facts"; } | publish "$base/commands/ping/reply"
    elif [ "$1" = reboot ]; then
        printf '%s %s\n' "$command_id" "$(get .boot)" | keep "$state/rebooting"
        answer accepted null | publish "$base/commands/reboot/reply"
        reboot_wanted=true
    else
        answer rejected '{"error":"no such command here","commands":["ping","reboot"]}' | publish "$base/commands/$1/reply"
    fi
}
answer() { # answer STATUS RESULT
    jq -nc --arg id "$command_id" --arg status "$1" --argjson result "$2" --argjson at "$(timestamp)" \
        '{id: $id, status: $status, result: $result, timestamp: $at}'
}
facts() { get '{firmwareVersion: .images[.running].version} | tojson'; }

on_twin() {
    if same "$tmp/twin.hex" "$state/twin.hex"; then return; fi
    printf '%b' "$(lib 'bytes_of_hex | escaped' -r <"$tmp/twin.hex")" >"$tmp/desired.json"
    jq -ces 'def count: type == "number" and . >= 0 and . == floor;
        if length == 1 and (.[0] | (.generation | count) and (.version | count) and (.desired | type) == "object")
        then .[0] | {generation, version, desired} else error("no desired state") end' "$tmp/desired.json" >"$tmp/desired" 2>"$tmp/why" || {
        drop "a desired state that is none"
        return
    }
    if [ -f "$state/twin.json" ] && jq -e --slurpfile held "$state/twin.json" \
        '.generation == $held[0].generation and .version <= $held[0].version' "$tmp/desired" >"$tmp/null"; then return; fi
    keep "$state/twin.json" <"$tmp/desired"
    keep "$state/twin.hex" <"$tmp/twin.hex"
    say "twin $(jq .version "$tmp/desired")"
}
report_twin() { # all there is to report, with what was refused in $errors; said when it is new, or when the broker has lost it
    [ -f "$state/twin.json" ] || return 0
    jq -c --argjson facts "$(facts)" '.desired as $desired
        | ($desired | with_entries(.value = (
            if .key | startswith("$") then "keys that begin with `$` are reserved"
            elif .key == "firmwareVersion" then "firmware is changed by ota, not by the twin"
            elif .key == "reportingInterval" and (.value | type != "number" or . < 1 or . > 86400) then "not a number of seconds from 1 to 86400"
            else null end) | select(.value != null))) as $errors
        | {version, reported: (($desired | with_entries(select(.key as $k | $errors | has($k) | not))) + $facts
            + if $errors == {} then {} else {"$errors": $errors} end)}
        | if (.reported | tojson | utf8bytelength) > 8192 then .reported = $facts + {"$errors": {"$": "it leaves no room to report it"}} else . end' \
        "$state/twin.json" >"$tmp/reported"
    if ! $lost && [ "$(cat "$tmp/reported")" = "$(cat "$state/reported.json" 2>/dev/null)" ]; then return; fi
    jq -c --argjson at "$(timestamp)" '. + {timestamp: $at}' "$tmp/reported" | publish "$base/twin/reported" -r &&
        keep "$state/reported.json" <"$tmp/reported"
}

# ------------------------------------------------------------------------------------------------ a life

wake() { # listen first: what was queued goes to whoever connects first, and mosquitto_pub would let it fall
    listen || return 1
    announce
    take
    advance
    if $reboot_wanted; then
        boot
        announce
    fi
    flush
}
announce() { # who is there, and what the last reboot was asked with
    online || say "not connected: $(cat "$tmp/client")"
    [ -f "$state/rebooting" ] || return 0
    read -r command_id before <"$state/rebooting"
    if [ "$(get .boot)" -le "$before" ]; then
        reboot_wanted=true
        return
    fi
    answer succeeded "$(get '{session: "\(.boot)-1"} | tojson')" | publish "$base/commands/reboot/reply" && rm -f "$state/rebooting"
}
run() {
    nap=''
    trap '[ -z "$nap" ] || kill "$nap"; online offline; exit 0' INT TERM HUP
    boot
    while :; do
        wake
        pause=$(od -An -N2 -tu2 /dev/urandom | jq --argjson usual "$(interval)" '$usual * (0.8 + 0.2 * . / 65536)')
        sleep "$pause" &
        nap=$!
        wait "$nap"
        nap=''
    done
}
claim() { # one at a time: two would write one record and cut each other off the broker
    if ! mkdir "$state/lock" 2>/dev/null; then
        holder=$(cat "$state/lock/pid" 2>/dev/null)
        case $(tr '\0' ' ' 2>/dev/null <"/proc/$holder/cmdline") in # after a power cut the number may be somebody else's
        *sleepy-device*"$state "*) die "\`$state\` is in use by process $holder" ;;
        esac
    fi
    echo $$ >"$state/lock/pid"
    trap 'rm -rf "$state/lock" "$tmp"' EXIT
    rm -rf "$tmp"
    mkdir "$tmp"
}
setting() { # the value of a top-level key of device.yaml
    sed -n "s/^$1: *[\"']\{0,1\}\([^\"']*\)[\"']\{0,1\} *\$/\1/p" "$bundle/device.yaml"
}
begin() {
    [ -r "$bundle/device.yaml" ] || die "\`$bundle\` is no bundle"
    base=$(setting device) broker=$(setting broker) artifacts=$(setting artifacts) heartbeat=$(setting heartbeat | jq .)
    id=${base##*/} tenant=${base%%/*} class=${base%/*} class=${class##*/}
    [ -n "$heartbeat" ] || die "\`$bundle/device.yaml\` has no heartbeat"
    case $base in */*/*/*) ;; *) die "\`$bundle/device.yaml\` names no device" ;; esac
    case $broker in mqtts://*:*) ;; *) die "\`$broker\` is not mqtts://HOST:PORT" ;; esac
    case $artifacts in https://*) artifacts=${artifacts%/} ;; *) die "\`$artifacts\` is not https://HOST:PORT" ;; esac
    host=${broker#mqtts://} port=${broker##*:} host=${host%:*} host=${host#[} host=${host%]}
    mkdir -p "$state" && claim || die "\`$state\` cannot be written"
    reboot_wanted=false
    [ -f "$state/seen" ] || : >"$state/seen"
    [ -f "$state/dropped" ] || echo 0 >"$state/dropped"
    [ -f "$state/record.json" ] || factory
    load_trust
}
factory() { # as it left the factory: an image in slot A
    printf '#!/bin/sh\n# factory image of %s\nexit 0\n' "$class" >"$(slot A)"
    : >"$state/unsent"
    jq -nc --arg version "$FACTORY_VERSION" --arg digest "$(sha256 "$(slot A)")" --argjson size "$(size_of "$(slot A)")" \
        '{boot: 0, active: "A", running: "A", trial: null, tries: 0, counter: 0, order: 0, content: "", attempt: null,
          images: {A: {version: $version, digest: $digest, size: $size, counter: 0}, B: null}}' | keep "$state/record.json"
}

[ $# -ge 2 ] || die 'usage: sleepy-device.sh BUNDLE STATE [boot | wake | run]'
bundle=$1 state=$2 tmp=$2/tmp here=${0%/*}
[ "$here" != "$0" ] || here=.
# shellcheck source-path=SCRIPTDIR source=sleepy-update.sh
. "$here/sleepy-update.sh"
begin
case ${3:-run} in
boot) boot ;;
wake) wake ;;
run) run ;;
*) die "\`$3\` is not boot, wake or run" ;;
esac
