// Package docs holds the documentation to what is there. Its tests read every
// page of the repository and
//
//   - run the commands of every sh and console block with the real binary, in
//     namespaces of their own (run_test.go, sandbox_test.go), or see that the block
//     says what it needs that is not here, and why;
//   - look up the flags, make targets, files and chart values that are named
//     anywhere, also in blocks that cannot be run (commands_test.go), and render
//     what pages install by helm (render_test.go);
//   - look up the metrics, flags, keys and files that sentences name (names_test.go);
//   - have `larder config check` read every snippet of configuration
//     (snippets_test.go);
//   - follow every relative link and anchor (links_test.go);
//   - have the binary say every message that docs/troubleshooting.md explains
//     (messages_test.go).
//
// It refuses fenced blocks without a language, since a command could hide there,
// and marks it does not know. It contacts nobody: what pages call docker.io or
// ghcr.io is a registry of test/registry inside the namespaces.
//
// Marks are HTML comments before a block, one in each line, so that readers do not
// see them:
//
//	<!-- needs: WHAT, why -->      not run; WHAT is one of needs in marks.go
//	<!-- tested: FILE -->          run by that file, which has each of its lines
//	<!-- exit: N -->               the last command ends with status N
//	<!-- serves: URL -->           goes on running; the next block waits for URL
//	<!-- file: PATH -->            not a command: the block is put there as a file
//	<!-- fresh -->                 begins in namespaces of its own
//	<!-- setup: COMMAND -->        is run first; what a reader has and we have not,
//	                               see prologue in run_test.go
//	<!-- said: NAME -->            text that testdata/said/NAME.sh has the binary say
//
// Where to look next: page.go reads pages, shell.go commands.
package docs
