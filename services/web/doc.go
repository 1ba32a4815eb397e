// Package web serves the console: pages that show what goes on, why something was flagged, and the rules, for people who would rather look than type. It has the
// same data for programs under /api/ (openapi.yaml).
//
//	guard.go     who may see a page: host, token, origin of a write; what a page may load
//	live.go      one stream for all open pages: it says that something has changed, and a page fetches itself again
//	pipeline.go  figures of the last 15 minutes, from the broker's offsets and from what is committed with them; in mode aws, kinesis.go takes them from
//	             what the worker and the alerter save
//	view.go      what the pages show; list.go has the lists, key.go a key, health.go the pipeline's parts, and studio.go the studio
//	pages.go     the pages, and what their forms do
//	api.go       the same for programs
//	chart.go     charts, as SVG
//	assets       templates, style and script; all of it is in the program, and no page loads anything from elsewhere
//
// A page is HTML that the server renders; the script replaces its live part and moves the focus, nothing more. If the database or the broker is away, a page says what is missing
// and shows the rest.
package web
