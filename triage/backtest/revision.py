"""Rule files as they were at a revision of the Git repository that their folder is in."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from triage.errors import Problem, RulesInvalid
from triage.rulefiles import CASE_SUFFIXES, SUFFIXES, TEMPLATE_SUFFIXES, with_included
from triage.rules.model import SourceText

_PATIENCE: Final = 60
"""Seconds for one call of git."""


def read_revision(path: Path, revision: str) -> list[SourceText]:
    """What `triage.rulefiles.read_rules` would have read at ``path`` when ``revision`` was checked out.

    Raises:
        RulesInvalid: git is missing, the folder is in no repository, it does not know the revision, or there were no
            rules then.
    """
    folder = path if path.is_dir() else path.parent
    commit = _git(folder, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}", about=revision)
    listed = _git(folder, "ls-tree", "-z", "--name-only", commit.strip(), about=revision).split("\0")

    def read(name: str) -> SourceText | None:
        if name not in listed:
            return None
        return SourceText(name, _git(folder, "show", f"{commit.strip()}:./{name}", about=revision))

    if path == folder:
        found = [source for name in listed if _is_rules(name) and (source := read(name)) is not None]
    else:
        found = with_included(path.name, read)
    if found:
        templates = (name for name in listed if name.endswith(TEMPLATE_SUFFIXES) and not name.startswith("."))
        found += [source for name in templates if (source := read(name)) is not None]
    if not found:
        raise _invalid(revision, f"no rule files at {path} then")
    return found


def _is_rules(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.endswith(CASE_SUFFIXES) and not name.startswith(".")


def _git(folder: Path, *command: str, about: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the revision cannot be taken for an option
            ["git", "-C", str(folder), *command],  # noqa: S607 - whichever git the user has
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
        )
        text = done.stdout.decode("utf-8-sig")
    except FileNotFoundError:
        raise _invalid(about, "git is not installed") from None
    except subprocess.TimeoutExpired:
        raise _invalid(about, f"git did not answer within {_PATIENCE} s") from None
    except UnicodeDecodeError:
        raise _invalid(about, "a rule file was not UTF-8 then") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0].removeprefix("fatal: ")
        raise _invalid(about, f"git says: {said[:300]}", f"asked in {folder}")
    return text


def _invalid(revision: str, message: str, hint: str = "") -> RulesInvalid:
    return RulesInvalid([Problem(f"revision {revision}", 0, 0, message, hint)])
