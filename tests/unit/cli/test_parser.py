import typer

from fleetctl.cli import parser


def test_usage_errors_of_typer_are_where_we_look_for_them() -> None:
    assert issubclass(typer.BadParameter, parser.UsageError)
    assert issubclass(parser.NoArgsIsHelpError, parser.UsageError)
    assert issubclass(parser.UsageError, parser.ClickException)
    assert issubclass(typer.Context, parser.Context)
