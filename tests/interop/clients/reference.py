"""Does the Python example of the API reference work? Only the base URL is another one."""

import json
import os
import sys
from typing import Any

import requests

PLUNK_SECRET_KEY = os.environ["PLUNK_SECRET_KEY"]


def send_email(to: str, subject: str, body: str) -> Any:
    """Send a mail."""
    response = requests.post(
        f"{os.environ['BASE_URL']}/v1/send",
        headers={"Authorization": f"Bearer {PLUNK_SECRET_KEY}", "Content-Type": "application/json"},
        json={"to": to, "subject": subject, "body": body},
        timeout=30,
    )

    data = response.json()

    if not data.get("success"):
        error = data["error"]
        raise Exception(f"[{error['code']}] {error['message']}")  # noqa: TRY002  as the reference has it

    return data["data"]


if __name__ == "__main__":
    try:
        print(json.dumps(send_email(*sys.argv[1:])))  # noqa: T201
    except Exception as error:  # noqa: BLE001
        print(error)  # noqa: T201
