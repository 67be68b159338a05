# The update of a sleepy device: what it proves, what it accepts, what it does. Read by sleepy-device.sh.
# shellcheck shell=sh disable=SC2015,SC2016,SC2119,SC2120,SC2034,SC2154 # the state, the folders and the device are of sleepy-device.sh

SLOT_SIZE=${SLOT_SIZE:-67108864} # bytes
DOWNLOAD_TRIES=5                 # wakes in a row without a byte of the image
START_TRIES=3                    # starts of a new image without a result
TEST_SECONDS=60

# ------------------------------------------------------------------------------------------------ what is proved

check_signature() { # check_signature KEY SIGNED SIGNATURE (files)
    case $(jq .alg "$1") in
    -8) openssl pkeyutl -verify -pubin -keyform DER -inkey "$1.der" -rawin -in "$2" -sigfile "$3" ;;
    -7) openssl dgst -sha256 -keyform DER -verify "$1.der" -signature "$3" "$2" ;;
    *) false ;;
    esac >/dev/null 2>&1
}

# prove ENVELOPE PLACE KEYS PAYLOAD: the payload of an envelope, signed for a place by one of the keys (files of JSON).
# 1. It is a COSE_Sign1 in its one spelling.  2. Its kid names one of the keys, which has not expired.
# 3. Its algorithm is the one that this key pins.  4. The signature covers header, place and payload.
# Status 2 where step 2 fails, 1 where another does.
prove() {
    lib envelope <"$1" >"$tmp/envelope" || return 1
    jq -ce --slurpfile keys "$3" --argjson now "$(clock)" \
        '.kid as $kid | first($keys[0][] | select(.kid == $kid and (.notAfter == null or $now == null or $now <= .notAfter)))' \
        "$tmp/envelope" >"$tmp/key" || return 2
    jq -e --slurpfile key "$tmp/key" '.alg == $key[0].alg' "$tmp/envelope" >"$tmp/null" || return 1
    write_bytes "$tmp/key.der" spki "$tmp/key" || return 1
    lib 'sig_structure($place)' --arg place "$2" <"$tmp/envelope" >"$tmp/structure" || return 1
    write_bytes "$tmp/signed" . "$tmp/structure" || return 1
    write_bytes "$tmp/signature" 'if .alg == -7 then .signature | der_signature else .signature end' "$tmp/envelope" || return 1
    check_signature "$tmp/key" "$tmp/signed" "$tmp/signature" || return 1
    jq -c .payload "$tmp/envelope" >"$4"
}

# read_trust ENVELOPE: a trust document signed by our root, for our tenant, every kid that of its key; to $tmp/trust.new.
read_trust() {
    prove "$1" "$tenant/_fleet/trust" "$tmp/root" "$tmp/payload" || return 1
    lib trust_document <"$tmp/payload" >"$tmp/trust.new" || return 1
    [ "$(jq -r .tenant "$tmp/trust.new")" = "$tenant" ] || return 1
    jq -c '.keys[]' "$tmp/trust.new" >"$tmp/trust.keys"
    while read -r line; do
        printf '%s' "$line" >"$tmp/one"
        write_bytes "$tmp/one.der" spki "$tmp/one" || return 1
        case $(sha256 "$tmp/one.der") in "$(jq -r .kid "$tmp/one")"*) ;; *) return 1 ;; esac
    done <"$tmp/trust.keys"
}
hold_trust() { # the keys that count from now on
    mv "$tmp/trust.new" "$tmp/trust"
    for role in release rollout; do
        jq -c --arg role "$role" '[.keys[] | select(.role == $role)]' "$tmp/trust" >"$tmp/$role"
    done
}
load_trust() { # root, and the greater of the bundle's trust document and the one received last
    openssl pkey -pubin -in "$bundle/root.pub" -outform DER -out "$tmp/root.der" || die "\`$bundle/root.pub\` is no public key"
    bytes_of "$tmp/root.der" | jq -c --arg kid "$(printf %.16s "$(sha256 "$tmp/root.der")")" \
        '[{kid: $kid, notAfter: null} + if length == 44 then {alg: -8, key: .[12:]} else {alg: -7, key: .[26:]} end]' >"$tmp/root"
    bytes_of "$bundle/trust.cose" >"$tmp/candidate"
    read_trust "$tmp/candidate" || die "\`$bundle/trust.cose\` is not signed by \`$bundle/root.pub\`"
    hold_trust
    if [ -f "$state/trust.json" ] && read_trust "$state/trust.json" && newer_trust; then hold_trust; fi
}
newer_trust() { jq -e --slurpfile held "$tmp/trust" '.version > $held[0].version' "$tmp/trust.new" >"$tmp/null"; }

# ------------------------------------------------------------------------------------------------ what is accepted

# on_update: prove an assignment and its manifest.
# 1. Two envelopes, nothing else.  2. A rollout key signed the assignment for this device on this topic.
# 3. The manifest's envelope is the one that it names.  4. A release key signed the manifest: if not, the offer has that flaw.
# A cancel needs 1 and 2 only.
on_update() {
    short "$tmp/ota.hex" && lib 'bytes_of_hex | cbor | if type == "array" and length == 2 then map(bstr(null)) else fail("no pair") end' \
        <"$tmp/ota.hex" >"$tmp/pair" || {
        drop "an update that is not two envelopes"
        return
    }
    jq -c '.[0]' "$tmp/pair" >"$tmp/first" && jq -c '.[1]' "$tmp/pair" >"$tmp/second"
    prove "$tmp/first" "$base/ota/desired" "$tmp/rollout" "$tmp/payload" && lib assignment <"$tmp/payload" >"$tmp/assignment" &&
        jq -e --arg tenant "$tenant" --arg id "$id" '.tenant == $tenant and .device == $id' "$tmp/assignment" >"$tmp/null" || {
        drop "an assignment that no rollout key signed for this device"
        return
    }
    write_bytes "$tmp/content" . "$tmp/payload"
    content=$(sha256 "$tmp/content")
    flaw='' image=null why=''
    if [ "$(jq -r .action "$tmp/assignment")" = install ]; then
        write_bytes "$tmp/named" . "$tmp/second"
        [ "$(sha256 "$tmp/named")" = "$(jq -r .manifest "$tmp/assignment")" ] || {
            drop "a manifest that the assignment does not name"
            return
        }
        prove "$tmp/second" fleetctl/manifest "$tmp/release" "$tmp/payload"
        case $? in
        0) if lib manifest <"$tmp/payload" >"$tmp/manifest"; then image=$(cat "$tmp/manifest"); else flaw=SIGNATURE why='the manifest is malformed'; fi ;;
        2) flaw=UNTRUSTED_KEY why='no release key signed the manifest' ;;
        *) flaw=SIGNATURE why='the signature of the manifest does not match' ;;
        esac
    fi
    consider
}

consider() { # the verdict on a proved assignment: an order counts once, and never a lower one (docs/protocol.md, "Updates")
    verdict=$(jq -r --slurpfile offer "$tmp/assignment" --arg content "$content" '$offer[0] as $new | .attempt as $held
        | ($held != null and ([$held.phase] | inside(["succeeded", "rolled_back", "canceled", "rejected", "failed"]) | not)) as $open
        | if $new.order == .order and $content == .content then "repeated"
          elif $new.order <= .order then "replayed"
          elif $open and ([$held.phase] | inside(["installed", "rebooting", "testing", "rolling_back"])) then "postponed"
          elif $new.action == "cancel" then if $open then "cancel" elif $held != null and $held.rolloutId == $new.rollout and $held.number >= $new.attempt then "noted" else "canceled" end
          elif $held != null and $held.rolloutId == $new.rollout and $new.attempt <= $held.number then "replayed"
          elif $open then "supersede" else "offer" end' "$state/record.json")
    case $verdict in
    repeated) ;;
    replayed)
        drop "an assignment whose order does not rise"
        return
        ;;
    postponed) return ;;
    noted) know ;;
    cancel) step canceled CANCELED "canceled by order $(jq .order "$tmp/assignment")" "$KNOW | .attempt.order = .order" \
        --slurpfile offer "$tmp/assignment" --arg content "$content" ;;
    canceled) open_attempt canceled CANCELED ;;
    *)
        [ "$verdict" = offer ] || step canceled CANCELED superseded
        objection=$(object)
        if [ -n "$flaw" ]; then
            open_attempt failed "$flaw" "$why"
        elif [ -n "$objection" ]; then
            open_attempt rejected "${objection%% *}" "${objection#* }"
        else
            open_attempt accepted
        fi
        ;;
    esac
    printf '%s' "$content" >"$tmp/shown" # this session has shown the assignment
}
KNOW='.order = $offer[0].order | .content = $content'
know() { change "$KNOW" --slurpfile offer "$tmp/assignment" --arg content "$content"; }
object() { # why a sound offer is refused, as `CODE detail`; nothing where it is not
    jq -r -L "$here" --slurpfile record "$state/record.json" --slurpfile offer "$tmp/assignment" --argjson image "$image" --argjson now "$(clock)" \
        --arg class "$class" --argjson room "$SLOT_SIZE" -n "$LIB"' $record[0] as $record | $offer[0] as $offer | $record.images[$record.running].version as $runs
        | if $image == null then ""
          elif $image.class != $class then "INCOMPATIBLE \($image.name) is not for a \($class)"
          elif $image.counter < $record.counter then "DOWNGRADE security counter \($image.counter) is below \($record.counter)"
          elif ($offer.allowDowngrade | not) and older($image.version; $runs) then "DOWNGRADE \($image.version) is older than \($runs)"
          elif $image.size > $room then "NO_SPACE \($image.size) bytes do not fit a slot"
          elif $now == null and ($offer.notBefore != null or $offer.notAfter != null or $offer.window != null) then "NO_CLOCK the clock is not set"
          elif $now != null and $offer.notAfter != null and $now > $offer.notAfter then "EXPIRED the time of the assignment is over"
          else "" end'
}
open_attempt() { # open_attempt PHASE [CODE] [DETAIL]: the first step of a new attempt
    spread=$(printf '%s/%s' "$(jq -r .rollout "$tmp/assignment")" "$id" | openssl dgst -sha256 -r)
    change "$KNOW"' | . as $r | $offer[0] as $o | ($phase == "accepted") as $taken
        | .attempt = {rolloutId: $o.rollout, number: $o.attempt, order: $o.order, manifest: "sha256:\($o.manifest)", phase: $phase, step: 1,
            code: (if $code == "" then null else $code end), detail: (if $detail == "" then null else $detail end), progress: 0,
            from: $r.images[$r.running].version, slot: (if $taken then {A: "B", B: "A"}[$r.active] else null end),
            acceptedBoot: (if $taken then $r.boot else null end), notBefore: $o.notBefore, notAfter: $o.notAfter, window: $o.window,
            readyAt: (if $now == null then null else $now + $o.jitter * $spread / 4294967296 end), tries: 0,
            image: (if $image == null then null else {version: $image.version, digest: $image.sha256, size: $image.size, counter: $image.counter} end)}' \
        --slurpfile offer "$tmp/assignment" --arg content "$content" --argjson image "$image" --argjson now "$(clock)" \
        --argjson spread "$(printf %d "0x$(printf %.8s "$spread")")" --arg phase "$1" --arg code "${2:-}" --arg detail "${3:-}"
    report
}

# ------------------------------------------------------------------------------------------------ the update
# accept -> download -> verify -> write the inactive slot and read it back -> boot flag -> reboot -> self-test -> confirm
# What to do next is read from the record alone, so that going on after a power cut is the same as going on.

advance() { # as far as this wake gets
    while :; do
        phase=$(get '.attempt.phase // ""') digest=$(get '.attempt.image.digest // ""') inactive=$(other "$(get .active)")
        terms=$(terms)
        case $phase:$terms in
        accepted:over | deferred:over | downloading:over | downloaded:over | verified:over | installing:over)
            step failed EXPIRED 'the time of the assignment is over'
            ;;
        accepted:open | deferred:open) step downloading ;;
        accepted:*) step deferred ;;
        deferred:*) return ;;
        downloading:*) download || return ;;
        downloaded:*) verify ;;
        verified:*) step installing '' '' '.images[$slot] = null' --arg slot "$inactive" ;;
        installing:*) install_image || return ;;
        installed:*) step rebooting ;;
        rebooting:* | rolling_back:*)
            flush
            boot
            announce
            ;;
        testing:*)
            flush
            self_test
            ;;
        *)
            if [ "$(get '.images[.active].counter > .counter')" = true ]; then change '.counter = .images[.active].counter'; fi
            rm -f "$state"/download-*
            return
            ;;
        esac
    done
}
terms() { # over, open or held: the times of the assignment
    jq -r --argjson now "$(clock)" '.attempt // {} | ($now // 0 | . % 86400 / 60 | floor) as $minute
        | if $now == null then "open"
          elif .notAfter != null and $now > .notAfter then "over"
          elif (.notBefore // 0) > $now or (.readyAt // 0) > $now then "held"
          elif .window == null then "open"
          else .window as [$from, $to]
            | if (if $from < $to then $minute >= $from and $minute < $to else $minute >= $from or $minute < $to end) then "open" else "held" end
          end' "$state/record.json"
}

download() { # status 1: the rest at the next wake
    flush
    part=$state/download-$digest size=$(get .attempt.image.size) before=$(size_of "$part") answered=000 ended=0
    if [ "$before" -gt "$size" ]; then rm -f "$part" && before=0; fi
    if [ "$before" -lt "$size" ]; then
        answered=$(curl -q -sS -f --proto =https --tlsv1.3 --cacert "$bundle/ca.pem" --cert "$bundle/device.pem" --key "$bundle/device.key" \
            --connect-timeout 10 --max-time 600 --max-filesize "$size" -C - -o "$part" -w '%{http_code}' \
            "$artifacts/sha256/$digest" 2>"$tmp/curl")
        ended=$?
    fi
    after=$(size_of "$part")
    if [ "$after" -eq "$size" ]; then
        step downloaded '' '' '.attempt.progress = 100'
        return
    fi
    case $ended:$answered in
    *:401 | *:403) step failed UNAUTHORIZED "the artifact server answers $answered" && return ;;
    23:*) step failed NO_SPACE 'the image cannot be written' && return ;;
    63:*) step failed INTEGRITY "the artifact server sends more than $size bytes" && return ;;
    33:* | 36:* | *:416) rm -f "$part" ;;
    esac
    if [ "$after" -gt "$before" ]; then
        step downloading '' '' '.attempt.tries = 0 | .attempt.progress = ($after * 100 / .attempt.image.size | floor)' --argjson after "$after"
    elif [ "$(get .attempt.tries)" -ge "$DOWNLOAD_TRIES" ]; then
        step failed CONNECTION_LOST "no byte in $DOWNLOAD_TRIES tries"
        return
    else
        change '.attempt.tries += 1'
    fi
    say "download: $after of $size bytes"
    return 1
}
verify() {
    part=$state/download-$digest
    if [ "$(size_of "$part")" -eq "$(get .attempt.image.size)" ] && [ "$(sha256 "$part")" = "$digest" ]; then
        step verified
    else
        rm -f "$part"
        step failed INTEGRITY 'what was downloaded is not what the manifest names'
    fi
}
install_image() { # write the inactive slot and read it back; then set the boot flag, if this wake has shown the assignment right before
    target=$(slot "$inactive")
    if [ "$(get ".images.$inactive.digest // \"\"")" != "$digest" ]; then
        if [ -f "$state/download-$digest" ] && ! keep "$target" <"$state/download-$digest"; then
            step failed NO_SPACE 'the slot cannot be written'
            return 0
        fi
        if [ "$(sha256 "$target" 2>/dev/null)" != "$digest" ]; then
            step failed INTEGRITY 'the slot does not read back as it was written'
            return 0
        fi
        change '.images[$slot] = .attempt.image' --arg slot "$inactive"
    fi
    [ "$terms" = open ] || return 1
    flush
    listen || return 1
    take
    [ "$(get .attempt.phase)" = installing ] || return 0
    [ "$(get '"\(.content) \(.attempt.order == .order)"')" = "$(cat "$tmp/shown" 2>/dev/null) true" ] || return 1
    [ "$(get .attempt.image.digest)" = "$digest" ] || return 0
    step installed '' '' '.trial = $slot | .tries = ($tries | tonumber)' --arg slot "$inactive" --arg tries "$START_TRIES"
}

boot() { # the bootloader: what starts now is counted before it starts
    : >"$state/seen"
    reboot_wanted=false
    trial=$(get '.trial // ""')
    if [ -z "$trial" ] && [ "$(get '.attempt.phase // ""')" = rolling_back ]; then
        step rolled_back "$(get '.attempt.code // ""')" "$(get '.attempt.detail // ""')" "$OLD"
    elif [ -z "$trial" ]; then
        change "$OLD"
    elif [ "$(get .tries)" -gt 0 ] && [ "$(sha256 "$(slot "$trial")")" = "$(get .images."$trial".digest)" ]; then
        step testing '' "start $((START_TRIES + 1 - $(get .tries))) of $START_TRIES" '.boot += 1 | .running = .trial | .tries -= 1'
    else
        step rolling_back BOOT_FAILED 'the new image was started without a result, or is damaged' "$OLD"
        step rolled_back BOOT_FAILED 'the new image was started without a result, or is damaged'
    fi
    say "boot $(get '"\(.boot): \(.images[.running].version) from slot \(.running)"')"
}
OLD='.boot += 1 | .running = .active | .trial = null | .tries = 0'

self_test() { # the image is a shell script that tests itself: by now it is proved, so it may run
    sh "$(slot "$(get .running)")" >"$tmp/test" 2>&1 </dev/null &
    tested=$!
    (
        trap 'kill "$nap"; exit' TERM
        sleep "$TEST_SECONDS" &
        nap=$!
        wait "$nap"
        kill -9 "$tested"
    ) >"$tmp/null" 2>&1 &
    watchdog=$!
    wait "$tested"
    result=$?
    kill "$watchdog" 2>"$tmp/null"
    if [ "$result" -eq 0 ]; then
        step succeeded '' '' '.active = .trial | .trial = null | .tries = 0'
    else
        step rolling_back HEALTH_FAILED "the self-test ended with status $result" '.trial = null | .tries = 0'
    fi
}
