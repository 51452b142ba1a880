// Package version says which keepone this is.
package version

// Version is the release that this is or comes before. A package of another version sets it as it is linked.
var Version = "0.1.0"

// Commit is set by the Makefile.
var Commit = "unknown"
