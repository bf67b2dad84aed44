"""The command `vital-tracking`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without the extra `cli`, say how to get it."""
    from vital_tracking.errors import MissingExtra, StoreUnavailable, VitalError

    try:
        from vital_tracking.cli.app import app

        app()
    except ImportError as error:  # of the command line itself, or of the command that was called
        if error.name is None or error.name.partition(".")[0] not in ("typer", "rich"):
            raise
        print(f"error: {MissingExtra('cli', 'The command vital-tracking')}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except VitalError as error:
        hint = " To see what names this database: vital-tracking status" if isinstance(error, StoreUnavailable) else ""
        print(f"error: {error}{hint}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
