// Package syntax reads a rules file: a script of Flink SQL with directives in comments. It yields a tree of statements, and errors with the position
// and a fix. Package rule decides what the names in the tree mean, and whether their types fit.
//
// The language is the part of Flink SQL that spate evaluates: INSERT INTO … SELECT … with one window, CREATE TABLE, and the statements
// around them that change nothing (SET, DROP TABLE IF EXISTS). Everything else is refused at its first word. The parser accepts
// nothing that Flink refuses, so a file that spate reads also runs in Flink.
//
// All memory is bounded by the size of the script: at most [MaxScript] bytes, and expressions nest at most [MaxDepth] deep.
package syntax
