// Asks the official JavaScript library whether it accepts calls.
//
// Reads JSON lines {"secret", "headers", "body"}, writes a line for each: "ok", or "refused: " and why.
"use strict";

const readline = require("node:readline");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  const { secret, headers, body } = JSON.parse(line);
  try {
    new Webhook(secret).verify(Buffer.from(body), headers);
    console.log("ok");
  } catch (err) {
    if (!(err instanceof WebhookVerificationError)) throw err;
    console.log(`refused: ${err.message}`);
  }
});
