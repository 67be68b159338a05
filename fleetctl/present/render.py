"""Records to text: table, wide, json, jsonl, yaml, name. Knows nothing of fleets."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TextIO

from fleetctl.errors import UsageError
from fleetctl.present.format import Format
from fleetctl.present.table import cells, line, sheet, table
from fleetctl.present.text import json_text, needs_escapes, safe, width
from fleetctl.present.view import As, Field, Rows, View, lookup, plain


class Page(NamedTuple):
    """Where and how to print: `limit` is the width of the terminal, None where there is none."""

    out: TextIO
    format: Format = Format.TABLE
    columns: tuple[str, ...] = ()
    limit: int | None = None

    def write(self, lines: Iterable[str]) -> None:
        for each in lines:
            self.out.write(each + "\n")


def render(result: object, view: View, page: Page, *, final: bool = False) -> None:
    """Print a record, a list of records or a stream of them.

    Raises `UsageError` for a stream that nobody can print as one JSON document, before anything is taken from it.
    """
    if result is None:
        return
    if isinstance(result, As):
        render(result.value, result.view, page, final=final)
    elif isinstance(result, Rows):
        _rows(map(plain, result.records), view, page)
    elif isinstance(result, Iterator):
        _stream(result, view, page, final)
    elif isinstance(result, list | tuple):
        _many([plain(each) for each in result], view, page)
    else:
        _one(plain(result), view, page)
    page.out.flush()


def _one(record: object, view: View, page: Page) -> None:
    if page.format in (Format.TABLE, Format.WIDE):
        page.write(sheet(record, _visible(record, view, page)))
    elif page.format is Format.JSON:
        page.write([json_text(_picked(record, page), indent=2)])
    else:
        _element(record, view, page)


def _visible(record: object, view: View, page: Page) -> tuple[Field, ...]:
    chosen = view.chosen(page.columns, wide=True)
    return chosen if page.columns else tuple(each for each in chosen if lookup(record, each.key) not in (None, "", [], {}))


def _many(records: list[object], view: View, page: Page) -> None:
    if page.format in (Format.TABLE, Format.WIDE):
        page.write(table(records, view.chosen(page.columns, page.format is Format.WIDE), page.limit, view.id))
    elif page.format is Format.JSON:
        page.write([json_text([_picked(each, page) for each in records], indent=2)])
    elif page.format is Format.YAML:
        page.write([_yaml([_picked(each, page) for each in records])])
    else:
        for each in records:
            _element(each, view, page)


def _rows(records: Iterator[object], view: View, page: Page) -> None:
    """A list of any length; JSON and YAML are whole or not at all."""
    if page.format in (Format.TABLE, Format.WIDE):
        page.write(table(records, view.chosen(page.columns, page.format is Format.WIDE), page.limit, view.id))
    elif page.format in (Format.JSON, Format.YAML):
        _many(list(records), view, page)
    else:
        for each in records:
            _element(each, view, page)


def _element(record: object, view: View, page: Page) -> None:
    if page.format is Format.NAME:
        page.write(_names(record, view))
    elif page.format is Format.YAML:
        page.write([_yaml(_picked(record, page))])
    else:
        page.write([json_text(_picked(record, page))])


def _names(record: object, view: View) -> Iterator[str]:
    """The id of a record; those of each, where records within it name it."""
    found = lookup(record, view.id)
    for each in found if isinstance(found, list) else [found]:
        yield safe(str(each.get("id") if isinstance(each, Mapping) else each))


def _picked(record: object, page: Page) -> object:
    if not page.columns or not isinstance(record, Mapping):
        return record
    return {key: lookup(record, key) for key in page.columns}


def _yaml(value: object) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=not needs_escapes(value), width=120)).rstrip("\n")


def _stream(stream: Iterator[object], view: View, page: Page, final: bool) -> None:
    if page.format is Format.JSON and not final:
        raise UsageError("a stream is not one JSON document", "take a record a line: -o jsonl")
    if page.format is Format.JSON or (page.format is Format.NAME and final):
        _outcome(stream, page)
    elif page.format in (Format.TABLE, Format.WIDE):
        _rolling(stream, view, page)
    else:
        for each in stream:
            kind, value = (each.view, each.value) if isinstance(each, As) else (view, each)
            page.write(["---"] if page.format is Format.YAML else [])
            _element(plain(value), kind, page)
            page.out.flush()


def _outcome(stream: Iterator[object], page: Page) -> None:
    """Print what the stream comes to, and let it go on: it may fail then, or stay."""
    for each in stream:
        if isinstance(each, As):
            render(each, each.view, page)


def _rolling(stream: Iterator[object], view: View, page: Page) -> None:
    """A table whose rows come one by one: columns grow with what they have seen."""
    columns = view.chosen(page.columns, page.format is Format.WIDE)
    widths = [max(column.least, width(column.title)) for column in columns]
    header = False
    for each in stream:
        if isinstance(each, As):
            page.write([""] if header else [])
            render(each, each.view, page)
            continue
        row = cells(plain(each), columns)
        widths = [max(seen, width(text)) for seen, text in zip(widths, row, strict=True)]
        if not header:
            page.write([line([column.title for column in columns], widths, page.limit)])
            header = True
        page.write([line(row, widths, page.limit)])
        page.out.flush()
