"""Asks the official Python library whether it accepts calls.

Reads JSON lines {"secret", "headers", "body"}, writes a line for each: "ok", or "refused: " and why.
"""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

for line in sys.stdin.buffer:
    call = json.loads(line)
    try:
        Webhook(call["secret"]).verify(call["body"].encode(), call["headers"])
        print("ok", flush=True)
    except WebhookVerificationError as err:
        print(f"refused: {err}", flush=True)
