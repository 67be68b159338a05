# The update of a sleepy device: what it proves, what it accepts, what it does. Read by sleepy-device.sh.
# shellcheck shell=sh disable=SC2015,SC2016,SC2119,SC2120,SC2034,SC2154 # the state, the folders and the device are of sleepy-device.sh

SLOT_SIZE=${SLOT_SIZE:-67108864} # bytes
DOWNLOAD_TRIES=5                 # wakes in a row without a byte of the image
START_TRIES=3                    # starts of a new image without a result
TEST_SECONDS=60

# ------------------------------------------------------------------------------------------------ what is proved

# prove ENVELOPE PLACE TRUST ROLE: the payload of an envelope, signed for a place by a key of that role, to $tmp/payload.
# `proof` in sleepy-device.jq has the steps. Status 2 where no key that counts signed it, 1 where anything else is wrong.
prove() {
    lib 'proof($trust[0]; $role; $place; $now)' -r --slurpfile trust "$3" --arg role "$4" --arg place "$2" --argjson now "$(clock)" \
        <"$1" >"$tmp/proof" || return 1
    { read -r alg && read -r key && read -r signed && read -r signature && read -r payload; } <"$tmp/proof" || return 2
    printf '%b' "$key" >"$tmp/key" && printf '%b' "$signed" >"$tmp/signed" && printf '%b' "$signature" >"$tmp/signature" || return 1
    case $alg in
    -8) openssl pkeyutl -verify -pubin -keyform DER -inkey "$tmp/key" -rawin -in "$tmp/signed" -sigfile "$tmp/signature" ;;
    -7) openssl dgst -sha256 -keyform DER -verify "$tmp/key" -signature "$tmp/signature" "$tmp/signed" ;;
    *) false ;;
    esac >"$tmp/null" 2>&1 || return 1
    printf '%s\n' "$payload" >"$tmp/payload"
}

# read_trust ENVELOPE: a trust document signed by our root, for our tenant, every kid that of its key; to $tmp/trust.new.
read_trust() {
    prove "$1" "$tenant/_fleet/trust" "$tmp/root" root || return 1
    lib 'trust_document | if .tenant != $tenant then fail("another tenant") else ., (.keys[] | "\(.kid) \(spki | escaped)") end' \
        -r --arg tenant "$tenant" <"$tmp/payload" >"$tmp/document" || return 1
    {
        read -r document
        while read -r kid key; do
            printf '%b' "$key" >"$tmp/key"
            case $(sha256 "$tmp/key") in "$kid"*) ;; *) return 1 ;; esac
        done
    } <"$tmp/document"
    printf '%s\n' "$document" >"$tmp/trust.new"
}
hold_trust() { mv "$tmp/trust.new" "$tmp/trust"; } # the keys that count from now on
load_trust() { # root, and the greater of the bundle's trust document and the one received last
    openssl pkey -pubin -in "$bundle/root.pub" -outform DER -out "$tmp/root.der" || die "\`$bundle/root.pub\` is no public key"
    bytes_of "$tmp/root.der" | jq -c --arg kid "$(printf %.16s "$(sha256 "$tmp/root.der")")" '{keys: [
        {role: "root", kid: $kid, notAfter: null} + if length == 44 then {alg: -8, key: .[12:]} else {alg: -7, key: .[26:]} end]}' \
        >"$tmp/root"
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
    if same "$tmp/ota.hex" "$state/ota.hex"; then return; fi # its attempt has ended
    short "$tmp/ota.hex" && lib 'bytes_of_hex | cbor | if type == "array" and length == 2 then map(bstr(null)) else fail("no pair") end
        | .[0], .[1], (.[1] | escaped)' -r <"$tmp/ota.hex" >"$tmp/pair" || {
        drop "an update that is not two envelopes"
        return
    }
    { read -r first && read -r second && read -r bytes; } <"$tmp/pair"
    printf '%s\n' "$first" >"$tmp/first" && printf '%s\n' "$second" >"$tmp/second" && printf '%b' "$bytes" >"$tmp/named"
    prove "$tmp/first" "$base/ota/desired" "$tmp/trust" rollout &&
        lib '(assignment | if .tenant == $tenant and .device == $id then ., .action, .manifest else fail("another device") end), escaped' \
            -r --arg tenant "$tenant" --arg id "$id" <"$tmp/payload" >"$tmp/proved" || {
        drop "an assignment that no rollout key signed for this device"
        return
    }
    { read -r assignment && read -r action && read -r manifest && read -r bytes; } <"$tmp/proved"
    printf '%s\n' "$assignment" >"$tmp/assignment" && printf '%b' "$bytes" >"$tmp/content"
    content=$(sha256 "$tmp/content")
    flaw='' image=null
    if [ "$action" = install ]; then
        [ "$(sha256 "$tmp/named")" = "$manifest" ] || {
            drop "a manifest that the assignment does not name"
            return
        }
        prove "$tmp/second" fleetctl/manifest "$tmp/trust" release
        case $? in
        0) image=$(lib manifest <"$tmp/payload") || image=null flaw='SIGNATURE the manifest is malformed' ;;
        2) flaw='UNTRUSTED_KEY no release key signed the manifest' ;;
        *) flaw='SIGNATURE the signature of the manifest does not match' ;;
        esac
    fi
    consider
}

consider() { # the verdict on a proved assignment: an order counts once, and never a lower one (docs/protocol.md, "Updates")
    lib '.attempt as $held | $offer[0] as $new | .images[.running].version as $runs
        | ($held != null and ([$held.phase] | inside(["succeeded", "rolled_back", "canceled", "rejected", "failed"]) | not)) as $open
        | ($held != null and $held.rolloutId == $new.rollout) as $same
        | (if $new.order == .order and $content == .content then if $open then "repeated" else "ended" end
          elif $new.order <= .order then "replayed"
          elif $open and ([$held.phase] | inside(["installed", "rebooting", "testing", "rolling_back"])) then "postponed"
          elif $new.action == "cancel" then if $open then "cancel" elif $same and $held.number >= $new.attempt then "noted" else "canceled" end
          elif $same and $new.attempt <= $held.number then "replayed"
          elif $open then "supersede" else "offer" end),
          (if $image == null then ""
          elif $image.class != $class then "INCOMPATIBLE \($image.name) is not for a \($class)"
          elif $image.counter < .counter then "DOWNGRADE security counter \($image.counter) is below \(.counter)"
          elif ($new.allowDowngrade | not) and older($image.version; $runs) then "DOWNGRADE \($image.version) is older than \($runs)"
          elif $image.size > $room then "NO_SPACE \($image.size) bytes do not fit a slot"
          elif $now == null and ($new.notBefore != null or $new.notAfter != null or $new.window != null) then "NO_CLOCK the clock is not set"
          elif $now != null and $new.notAfter != null and $now > $new.notAfter then "EXPIRED the time of the assignment is over"
          else "" end)' -r --slurpfile offer "$tmp/assignment" --arg content "$content" --argjson image "$image" --arg class "$class" \
        --argjson room "$SLOT_SIZE" --argjson now "$(clock)" <"$state/record.json" >"$tmp/verdict"
    { read -r verdict && read -r objection; } <"$tmp/verdict"
    case $verdict in
    repeated) ;;
    ended) keep "$state/ota.hex" <"$tmp/ota.hex" ;;
    replayed)
        drop "an assignment whose order does not rise"
        return
        ;;
    postponed) return ;;
    noted) change "$KNOW" --slurpfile offer "$tmp/assignment" --arg content "$content" ;;
    cancel) step canceled CANCELED "canceled by a later order" "$KNOW | .attempt.order = .order" \
        --slurpfile offer "$tmp/assignment" --arg content "$content" ;;
    canceled) open_attempt canceled CANCELED ;;
    *)
        [ "$verdict" = offer ] || step canceled CANCELED superseded
        if [ -n "$flaw" ]; then
            open_attempt failed "${flaw%% *}" "${flaw#* }"
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
open_attempt() { # open_attempt PHASE [CODE] [DETAIL]: the first step of a new attempt
    rm -f "$state/ota.hex"
    step_phase=$1 step_code=${2:-} step_detail=${3:-}
    spread=$(printf '%s' "$assignment$id" | openssl dgst -sha256 -r)
    jq -c --slurpfile offer "$tmp/assignment" --arg content "$content" --argjson image "$image" --argjson now "$(clock)" \
        --argjson spread "$(printf %d "0x$(printf %.8s "$spread")")" --arg phase "$1" --arg code "$step_code" --arg detail "$step_detail" \
        --argjson at "$(timestamp)" "$KNOW"' | . as $r | $offer[0] as $o | ($phase == "accepted") as $taken
        | .attempt = {rolloutId: $o.rollout, number: $o.attempt, order: $o.order, manifest: "sha256:\($o.manifest)", phase: $phase, step: 1,
            code: (if $code == "" then null else $code end), detail: (if $detail == "" then null else $detail end), progress: 0,
            from: $r.images[$r.running].version, slot: (if $taken then {A: "B", B: "A"}[$r.active] else null end),
            acceptedBoot: (if $taken then $r.boot else null end), notBefore: $o.notBefore, notAfter: $o.notAfter, window: $o.window,
            readyAt: (if $now == null then null else $now + $o.jitter * $spread / 4294967296 end), tries: 0,
            image: (if $image == null then null else {version: $image.version, digest: $image.sha256, size: $image.size, counter: $image.counter} end)}
        | ., '"$REPORT" "$state/record.json" >"$tmp/step"
    settle
}

# ------------------------------------------------------------------------------------------------ the update
# accept -> download -> verify -> write the inactive slot and read it back -> boot flag -> reboot -> self-test -> confirm
# What to do next is read from the record alone, so that going on after a power cut is the same as going on.

advance() { # as far as this wake gets
    while :; do
        look
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
            if $raised; then change '.counter = .images[.active].counter'; fi
            rm -f "$state"/download-*
            return
            ;;
        esac
    done
}
look() { # what there is to know of the attempt; `terms` says whether its times let it go on
    jq -r --argjson now "$(clock)" '(.attempt // {phase: "none"}) as $a | {A: "B", B: "A"}[.active] as $inactive
        | ($now // 0 | . % 86400 / 60 | floor) as $minute
        | $a.phase, $a.image.digest // "none", $a.image.size // 0, $a.tries // 0, $inactive, .images[$inactive].digest // "none",
          .images[.active].counter > .counter,
          if $now == null then "open"
          elif $a.notAfter != null and $now > $a.notAfter then "over"
          elif ($a.notBefore // 0) > $now or ($a.readyAt // 0) > $now then "held"
          elif $a.window == null then "open"
          else $a.window as [$from, $to]
            | if (if $from < $to then $minute >= $from and $minute < $to else $minute >= $from or $minute < $to end) then "open" else "held" end
          end' "$state/record.json" >"$tmp/look"
    { read -r phase && read -r digest && read -r size && read -r tries && read -r inactive && read -r holds && read -r raised &&
        read -r terms; } <"$tmp/look" || die "the record cannot be read"
    part=$state/download-$digest
}

download() { # status 1: the rest at the next wake
    flush
    before=$(size_of "$part") answered=000 ended=0
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
    elif [ "$tries" -ge "$DOWNLOAD_TRIES" ]; then
        step failed CONNECTION_LOST "no byte in $DOWNLOAD_TRIES tries"
        return
    else
        change '.attempt.tries += 1'
    fi
    say "download: $after of $size bytes"
    return 1
}
verify() {
    if [ "$(size_of "$part")" -eq "$size" ] && [ "$(sha256 "$part")" = "$digest" ]; then
        step verified
    else
        rm -f "$part"
        step failed INTEGRITY 'what was downloaded is not what the manifest names'
    fi
}
install_image() { # write the inactive slot and read it back; then set the boot flag, if this wake has shown the assignment right before
    target=$(slot "$inactive")
    if [ "$holds" != "$digest" ]; then
        if [ -f "$part" ] && ! keep "$target" <"$part"; then
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
    case $(get '"\(.attempt.phase) \(.attempt.image.digest) \(.attempt.order == .order) \(.content)"') in
    "installing $digest true $(cat "$tmp/shown" 2>/dev/null)") ;;
    "installing $digest "*) return 1 ;;
    *) return 0 ;;
    esac
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
