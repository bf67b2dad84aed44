"""The real `supabase` CLI against a plain PostgreSQL, without Docker and without a Supabase account."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.node import ensure_node_packages, node_binary, node_environment

PUSH_TIMEOUT_SECONDS = 120


def db_push(database_url: str, project_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Apply the pending migrations of `project_dir/supabase` with `supabase db push`; the URL must be a TCP one.

    The CLI works on a copy, because it leaves files of its own in the project.
    """
    cli = ensure_node_packages() / "supabase" / "dist" / "supabase.js"
    with tempfile.TemporaryDirectory(prefix="supabase-cli-") as scratch:
        project = Path(scratch) / "project"
        shutil.copytree(project_dir / "supabase", project / "supabase", ignore=shutil.ignore_patterns(".temp"))
        command = [str(node_binary()), str(cli), "db", "push", f"--remote={database_url}", "--skip-vault", "--yes"]
        return subprocess.run(
            [*command, "--agent=no", "--workdir", str(project), *options],
            cwd=project,
            env=_environment(Path(scratch)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PUSH_TIMEOUT_SECONDS,
            check=False,
        )


def _environment(home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in node_environment().items() if not name.startswith(("SUPABASE_", "PG"))}
    return inherited | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "SUPABASE_TELEMETRY_DISABLED": "1",
        "PGSSLMODE": "disable",
        "NO_COLOR": "1",
        "CI": "1",
        "DOCKER_HOST": "unix://" + os.fspath(home / "no-docker.sock"),
    }
