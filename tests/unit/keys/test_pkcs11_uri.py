import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import ConfigError
from fleetctl.keys.pkcs11_uri import Pkcs11Uri

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20)


@given(WORDS, st.none() | WORDS, st.just("") | WORDS, st.none() | WORDS, st.none() | WORDS)
def test_a_uri_comes_back_from_its_text(
    token: str, serial: str | None, prefix: str, module: str | None, source: str | None
) -> None:
    uri = Pkcs11Uri(token, serial, prefix, module, source)
    assert Pkcs11Uri.parse(str(uri)) == uri


def test_escapes_and_both_kinds_of_attributes_are_read() -> None:
    uri = Pkcs11Uri.parse(
        "pkcs11:token=My%20fleet%3b;object=prod-;type=private?module-path=/usr/lib/x.so&pin-source=file:/run/pin"
    )
    assert uri == Pkcs11Uri("My fleet;", None, "prod-", "/usr/lib/x.so", "file:/run/pin")
    assert str(uri) == "pkcs11:token=My%20fleet%3B;object=prod-?module-path=/usr/lib/x.so&pin-source=file:/run/pin"


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:",
        "pkcs11:object=a",
        "pkcs11:token=",
        "pkcs11:token=a;token=b",
        "pkcs11:token=a;colour=red",
        "pkcs11:token=a;type=cert",
        "pkcs11:token=a;module-path=/x.so",
        "pkcs11:token=%ff",
        "pkcs11:token=%zz",
        "pkcs11:token=%00",
        "pkcs11:token=a%0ab",
        "pkcs11:token",
    ],
)
def test_what_names_no_token_in_so_many_words_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pkcs11Uri.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["pkcs11:token=a?pin-value=987123", "pkcs11:token=a;pin-value=987123", "pkcs11:pin-value=987123"]
)
def test_a_pin_in_a_uri_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="a PIN has no place in a URI") as caught:
        Pkcs11Uri.parse(text)
    assert "987123" not in caught.value.message + caught.value.hint
