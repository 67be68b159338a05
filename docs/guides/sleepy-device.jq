# Bytes, CBOR, COSE and the signed documents of a fleet, in jq: what sleepy-device.sh proves an update with.
#
# CBOR in its deterministic encoding (RFC 8949 section 4.2.1) only: any other spelling is an error.
# A byte string is {b: [bytes]}, a map {m: {key: value}, keys: "int" | "text"}, a float {f: value}.

def fail(why): error("malformed: " + why);
def bytes_of_hex:
  explode | map(if . >= 97 then . - 87 else . - 48 end) | [range(0; length; 2) as $i | .[$i] * 16 + .[$i + 1]];
def hex: "0123456789abcdef" as $digits
  | [.[] | (. / 16 | floor) as $high | $digits[$high : $high + 1] + $digits[. - $high * 16 : . - $high * 16 + 1]] | join("");
def escaped: [.[] | "\\0\(. / 64 | floor)\(. / 8 | floor | . % 8)\(. % 8)"] | join(""); # as printf %b reads it

def number($b; $p; $n): reduce range($n) as $i (0; . * 256 + $b[$p + $i]);

def head($b; $p):
  if $p >= ($b | length) then fail("it ends early") else . end
  | ($b[$p] / 32 | floor) as $major | ($b[$p] % 32) as $info
  | if $info < 24 then {major: $major, info: $info, n: $info, next: ($p + 1)}
    elif $info > 27 then fail("indefinite length")
    else [1, 2, 4, 8][$info - 24] as $width
      | if $p + 1 + $width > ($b | length) then fail("it ends early") else . end
      | number($b; $p + 1; $width) as $n
      | if $major < 7 and $n < [24, 256, 65536, 4294967296][$info - 24] then fail("a number is not in its shortest form") else . end
      | {major: $major, info: $info, n: $n, next: ($p + 1 + $width)}
    end;

def utf8:
  def bad: fail("text is not UTF-8");
  (. + [-1]) as $all | [foreach $all[] as $c ({left: 0};
    if .left > 0 then
      if $c < 128 or $c > 191 then bad
      else .code = .code * 64 + $c - 128 | .left -= 1
        | if .left == 0 and (.code < .low or .code > 1114111 or (.code >= 55296 and .code <= 57343)) then bad else . end end
    elif $c < 128 then {left: 0, code: $c}
    elif $c >= 194 and $c < 224 then {left: 1, code: ($c - 192), low: 128}
    elif $c >= 224 and $c < 240 then {left: 2, code: ($c - 224), low: 2048}
    elif $c >= 240 and $c < 245 then {left: 3, code: ($c - 240), low: 65536}
    else bad end;
    if .left == 0 and .code >= 0 then .code else empty end)] | implode;

def float($b; $info; $p):
  (if $info == 25 then [$b[$p], ($b[$p] % 128 / 4 | floor), $b[$p] % 4 * 256 + $b[$p + 1], 10, 15, 31]
   elif $info == 26 then [$b[$p], $b[$p] % 128 * 2 + ($b[$p + 1] / 128 | floor), $b[$p + 1] % 128 * 65536 + number($b; $p + 2; 2), 23, 127, 255]
   else [$b[$p], $b[$p] % 128 * 16 + ($b[$p + 1] / 16 | floor), $b[$p + 1] % 16 * 281474976710656 + number($b; $p + 2; 6), 52, 1023, 2047] end)
  | . as [$sign, $exponent, $fraction, $bits, $bias, $special]
  | if $exponent == $special then fail("a number is not finite") else . end
  | (if $exponent == 0 then [$fraction, 1 - $bias - $bits] else [$fraction + pow(2; $bits), $exponent - $bias - $bits] end)
  | until(.[0] % 2 == 1 or .[0] == 0; [.[0] / 2, .[1] + 1]) | . as [$m, $e] | ($m * pow(2; $e)) as $value
  | def fits($digits; $least; $most): $m == 0 or ($m < pow(2; $digits) and $e >= $least and $value < pow(2; $most));
    if ($info > 25 and fits(11; -24; 16)) or ($info > 26 and fits(24; -149; 128)) then fail("a float is not in its shortest form")
    else {f: (if $sign > 127 then - $value else $value end)} end;

def item($b; $p; $depth):
  head($b; $p) as $h
  | if $h.major == 0 then {v: $h.n, next: $h.next}
    elif $h.major == 1 then {v: (-1 - $h.n), next: $h.next}
    elif $h.major < 4 then ($h.next + $h.n) as $next
      | if $next > ($b | length) then fail("it ends early") else $b[$h.next:$next] end
      | {v: (if $h.major == 2 then {b: .} else utf8 end), next: $next}
    elif $h.major == 6 then fail("a tag")
    elif $h.major == 7 then
      if $h.info == 20 or $h.info == 21 then {v: ($h.info == 21), next: $h.next}
      elif $h.info == 22 then {v: null, next: $h.next}
      elif $h.info >= 25 then {v: float($b; $h.info; $p + 1), next: $h.next}
      else fail("a simple value") end
    elif $depth == 0 or $h.n > ($b | length) then fail("it is too deep or too long")
    elif $h.major == 4 then
      reduce range($h.n) as $_ ({v: [], next: $h.next}; item($b; .next; $depth - 1) as $x | {v: (.v + [$x.v]), next: $x.next})
    else
      reduce range($h.n) as $_ ({v: {m: {}, keys: null}, next: $h.next, last: []};
        .next as $start | item($b; $start; 0) as $key | $b[$start : $key.next] as $spelling
        | ({"0": "int", "3": "text"}[head($b; $start).major | tostring]) as $kind
        | if $kind == null or (.v.keys // $kind) != $kind then fail("the keys of a map are mixed") else . end
        | if $spelling <= .last then fail("the keys of a map are not in order") else . end
        | item($b; $key.next; $depth - 1) as $value
        | {v: {m: (.v.m + {($key.v | tostring): $value.v}), keys: $kind}, next: $value.next, last: $spelling})
    end;
def cbor: . as $b | item($b; 0; 16) | if .next == ($b | length) then .v else fail("something follows it") end;

# ---- COSE_Sign1 (RFC 9052)
def bstr($size): if type == "object" and has("b") and ($size == null or (.b | length) == $size) then .b
  else fail("these are not the bytes that were to be there") end;
def envelope:
  if .[0] != 210 then fail("no tag 18") else .[1:] | cbor end
  | if type != "array" or length != 4 then fail("no array of four") else . end
  | if .[1] != {m: {}, keys: null} then fail("the unprotected header is not empty") else . end
  | {protected: (.[0] | bstr(null)), payload: (.[2] | bstr(null)), signature: (.[3] | bstr(64))}
  | (.protected | cbor) as $header
  | if ($header | type) != "object" or $header.keys != "int" or ($header.m | keys) != ["1", "4"] then fail("the header") else . end
  | . + {alg: $header.m["1"], kid: ($header.m["4"] | bstr(8) | hex)};
def sized($major): length as $n | (if $n < 24 then [$major * 32 + $n] elif $n < 256 then [$major * 32 + 24, $n]
  else [$major * 32 + 25, ($n / 256 | floor), $n % 256] end) + .;
def sig_structure($aad): [132] + ("Signature1" | explode | sized(3)) + (.protected | sized(2)) + ($aad | explode | sized(2)) + (.payload | sized(2));
def spki: # SubjectPublicKeyInfo in DER (RFC 8410, RFC 5480)
  if .alg == -8 then [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0] + .key
  else [48, 89, 48, 19, 6, 7, 42, 134, 72, 206, 61, 2, 1, 6, 8, 42, 134, 72, 206, 61, 3, 1, 7, 3, 66, 0] + .key end;
def der_signature: # r || s of ES256 as openssl reads it
  def integer: until(length == 1 or .[0] != 0; .[1:]) | if .[0] > 127 then [0] + . else . end | [2, length] + .;
  (.[:32] | integer) + (.[32:] | integer) | [48, length] + .;

# What there is to prove, a line each: algorithm, key, what is signed, signature, payload; `unknown` where no such key counts.
# 1. It is a COSE_Sign1 in its one spelling.  2. Its kid names one of the keys of the role, which has not expired.
# 3. Its algorithm is the one that this key pins.  openssl does the rest.
def proof($trust; $role; $place; $now): envelope as $e
  | [$trust.keys[] | select(.role == $role and .kid == $e.kid and (.notAfter == null or $now == null or $now <= .notAfter))][0]
  | if . == null then "unknown"
    elif .alg != $e.alg then fail("another algorithm than the one of the key")
    else .alg, (spki | escaped), ($e | sig_structure($place) | escaped),
      ((if .alg == -7 then $e.signature | der_signature else $e.signature end) | escaped), $e.payload end;

# ---- members of the signed maps: below 100 every key must be known
def members($known):
  if type != "object" or .keys != "int" then fail("no map of integers") else .m end
  | if any(to_entries[]; (.key | tonumber) as $k | .value == null or $k < 1 or ($k > $known and $k < 100)) then fail("a critical key") else . end;
def int($key; $low; $high): .[$key] | if type == "number" and . >= $low and . <= $high then . else fail("\($key) is no such number") end;
def int_or_null($key): if has($key) then int($key; 0; 9007199254740991) else null end;
def text($key; $pattern): .[$key] | if type == "string" and test($pattern) then . else fail("\($key) is no such text") end;
def level($key): text($key; "\\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\\z");
def token($key): text($key; "\\A[A-Za-z0-9][A-Za-z0-9._+:-]{0,63}\\z");

def trust_document: cbor | members(3)
  | {version: int("1"; 1; 9007199254740991), tenant: level("2"), keys: .["3"]}
  | if (.keys | type) != "array" or (.keys | length) > 64 then fail("the keys") else . end
  | .keys |= map(members(5)
    | {role: ["release", "rollout", "command"][int("1"; 1; 3) - 1], kid: (.["2"] | bstr(8) | hex), alg: int("3"; -8; -7),
       key: .["4"], notAfter: int_or_null("5")}
    | .key |= bstr(null) | if (.key | length) == {"-8": 32, "-7": 65}[.alg | tostring] then . else fail("a key") end)
  | if (.keys | unique_by([.role, .kid]) | length) != (.keys | length) then fail("a key twice") else . end;
def window: if has("10") | not then null else .["10"]
  | if type == "array" and length == 2 and all(.[]; type == "number" and . >= 0 and . < 1440) and .[0] != .[1] then .
    else fail("the window") end end;
def assignment: cbor | members(12)
  | {tenant: level("1"), device: level("2"), rollout: level("3"), order: int("4"; 1; 9007199254740991),
     action: ["install", "cancel"][int("5"; 1; 2) - 1], attempt: int("6"; 1; 9007199254740991), manifest: (.["7"] | bstr(32) | hex),
     notBefore: int_or_null("8"), notAfter: int_or_null("9"), window: window, jitter: int("11"; 0; 4294967295),
     allowDowngrade: (.["12"] | if type == "boolean" then . else fail("12") end)};
def manifest: cbor | members(10)
  | {vendor: text("1"; "\\A[^\\x00-\\x1f\\x7f-\\x{9f}]{1,64}\\z"), class: level("2"), version: token("3"), slot: token("4"),
     size: int("5"; 1; 9007199254740991), sha256: (.["6"] | bstr(32) | hex), format: token("7"),
     counter: int("8"; 0; 4294967295), sequence: int("9"; 0; 9007199254740991), name: text("10"; "\\A.{1,256}\\z")}
  | if .name != "\(.class)@\(.version)" then fail("the name") else . end;

# ---- Semantic Versioning, section 11: as arrays, which jq orders; null where it is none
def semver: "(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)" as $word | "(0|[1-9][0-9]*)" as $n
  | [match("\\A\($n)\\.\($n)\\.\($n)(?:-(\($word)(?:\\.\($word))*))?(?:\\+[0-9A-Za-z.-]+)?\\z")][0]
  | if . == null then null else [.captures[].string] | . as [$x, $y, $z, $pre]
    | [([$x, $y, $z] | map(tonumber)), $pre == null,
       (($pre // "") | split(".") | map(if test("\\A[0-9]+\\z") then tonumber else . end))] end;
def older($new; $running): ($new | semver) as $a | ($running | semver) as $b | $a != null and $b != null and $a < $b;
def seconds: # of an RFC 3339 time
  capture("\\A(?<day>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.][0-9]+)?(?:Z|(?<sign>[+-])(?<h>[0-9]{2}):(?<m>[0-9]{2}))\\z")
  | (.day + "Z" | fromdateiso8601) - (if .sign == null then 0 else ((.h | tonumber) * 60 + (.m | tonumber)) * (.sign + "60" | tonumber) end);
