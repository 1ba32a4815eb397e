// Package decider answers queries about decisions: whether an account, an address or another key is flagged. It follows the topic, or the table in
// mode aws, and answers from memory; any number of replicas can run.
//
//	GET /v1/decisions?scope=username&value=42      the decisions about a value, or null
//	GET /v1/decisions/stream?startup=true          all decisions; then the changes since the client's previous request
//
//	GET /v1/check?scope=ip&value=192.0.2.1         204 if no decision applies to the value, 403 if one does, for proxies
//
// The first two are compatible with CrowdSec's bouncer API, so existing bouncers and libraries work.
//
// If the broker or the table is unavailable, the decider keeps answering from memory, and the header Spate-Decisions-Age says how old its view is. If a
// maximum age is set, the decider answers 503 beyond it.
package decider
