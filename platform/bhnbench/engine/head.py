"""Whom a cluster's head lets in, asked before anything is sent to it. Needs no Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests

from bhnbench.errors import JobError

ANSWER_SECONDS = 10.0
REFUSED = (401, 403)  # no token, a wrong one
TOKEN = "in RAY_AUTH_TOKEN, in the file RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token"


def identify(address: str) -> dict[str, str]:
    """The headers with which a head lets in; none where it lets in everybody.

    The token is shown to a head that asks for one, and to no other.

    Raises:
        JobError: nobody answers there, or the token is missing or wrong.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise JobError(
            "--address must be that of the head's dashboard, such as http://head:8265, "
            f"but is {address}"
        )
    if _status(address, {}) not in REFUSED:
        return {}
    headers = {"Authorization": f"Bearer {_token(address)}"}
    if _status(address, headers) in REFUSED:
        raise JobError(f"{address}: the head refuses the token: it must be the head's own {TOKEN}")
    return headers


def _status(address: str, headers: Mapping[str, str]) -> int:
    """How a head answers."""
    try:
        answer = requests.get(
            f"{address}/api/version",
            headers=dict(headers),
            timeout=ANSWER_SECONDS,
            allow_redirects=False,  # would take the token elsewhere
        )
    except (requests.RequestException, ValueError) as error:  # ValueError: an odd token
        raise JobError(
            f"{address}: no Ray head answers ({type(error).__name__}); it must run with its "
            "dashboard, whose port is 8265 unless it was told another one"
        ) from None
    if answer.status_code != requests.codes.ok and answer.status_code not in REFUSED:
        raise JobError(f"{address}: is no Ray head: /api/version gives {answer.status_code}")
    return answer.status_code


def _token(address: str) -> str:
    """The token of the head, where Ray looks for it."""
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        token = (token or path.expanduser().read_text(encoding="ascii")).strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token:
        raise JobError(f"{address}: the head asks for a token; give its own {TOKEN}")
    return token
