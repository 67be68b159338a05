"""What Typer keeps to itself and we need all the same; a test guards these paths."""

from typer._click import Command, Context, HelpFormatter
from typer._click.exceptions import ClickException, NoArgsIsHelpError, UsageError
from typer._click.shell_completion import CompletionItem

__all__ = ["ClickException", "Command", "CompletionItem", "Context", "HelpFormatter", "NoArgsIsHelpError", "UsageError"]
