import io
from pathlib import Path

import pytest

from fleetctl.cli.targets import expand, payload_of
from fleetctl.errors import FleetError, UsageError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_words_files_and_stdin_name_devices_once_each(tmp_path: Path) -> None:
    listed = tmp_path / "ids"
    listed.write_text("# the north\npump-1\n\n  pump-2  \r\n")
    assert expand(["pump-9", f"@{listed}", "-", "pump-*"], io.StringIO("pump-2\npump-3\n")) == [
        "pump-9",
        "pump-1",
        "pump-2",
        "pump-3",
        "pump-*",
    ]
    assert expand(None, io.StringIO()) == []


def test_a_source_without_devices_is_never_everything(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n# nothing\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for word in ("-", "", f"@{empty}", "@", f"@{tmp_path}", f"@{tmp_path / 'binary'}", "@no\0file"):
        with pytest.raises(UsageError):
            expand([word], io.StringIO(""))
    with pytest.raises(UsageError, match="which is a terminal"):
        expand(["-"], Terminal("pump-1\n"))


def test_a_payload_is_text_a_file_or_stdin(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"\x00\xff")
    assert payload_of('{"a":1}', io.StringIO(), 10) == b'{"a":1}'
    assert payload_of(f"@{tmp_path / 'p'}", io.StringIO(), 10) == b"\x00\xff"
    assert payload_of("-", io.StringIO("{}"), 10) == b"{}"
    with pytest.raises(UsageError, match="cannot be read"):
        payload_of("@no-such-file", io.StringIO(), 10)
    with pytest.raises(FleetError, match="larger than 2 bytes"):
        payload_of("abc", io.StringIO(), 2)
