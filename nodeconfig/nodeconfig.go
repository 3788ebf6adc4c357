// Package nodeconfig makes a node's container runtime pull through the mirror:
// it finds out what the node is, plans what has to change, applies the plan,
// reads back what it wrote, and takes all of it back on request.
//
// A [Target] knows one kind of node; [Targets] lists them and [Detect] picks one.
// Every target plans first and touches nothing while it does. What it writes it
// marks, what it finds it keeps: each file is replaced atomically, and beside it
// stands a record from which [Target.Undo] restores it byte for byte. A process
// that is killed leaves each file either old or new, and the next run completes.
//
// The package refuses to write what the runtime would silently ignore, to touch
// a configuration it cannot parse, and to restart anything it was not told to.
// It reads no environment and no flags, and it never contacts a registry.
//
// node.go has the node's file system, write.go and record.go the atomic write
// and its undo record, apply.go what all targets share, containerd.go the target
// most others stand on, address.go where the mirror is reached.
package nodeconfig

import (
	"bytes"
	"context"
	"io/fs"
	"net/netip"
)

// Target is one kind of node: how its runtime is told of the mirror.
//
// Plan and Undo read the node and change nothing; Apply does what they
// returned, in order, and reads it back. ctx bounds each call; a call that is
// cut short leaves every file whole, and can be repeated.
type Target interface {
	// Name is what --target calls it: "containerd", "k3s".
	Name() string
	// Detect says whether the node is of this kind, and by what that is seen.
	Detect(ctx context.Context) (evidence string, found bool)
	// Plan returns what has to change for the node to use the mirror as cfg
	// says, in the order in which it has to happen; nothing when the node is
	// already as it should be. An error means the node cannot be configured,
	// and says what to do about it.
	Plan(ctx context.Context, cfg Config) ([]Change, error)
	// Undo returns what has to change for the node to be as it was before the
	// first Apply.
	Undo(ctx context.Context, cfg Config) ([]Change, error)
	// Apply makes the changes and reads them back. It stops at the first that
	// fails, and names it; those before stay in force.
	Apply(ctx context.Context, changes []Change) error
}

// Config is what is wanted of a node.
type Config struct {
	// Mirror is the address and port at which the node's runtime reaches the
	// mirror. It is valid and its port is not zero.
	Mirror netip.AddrPort
	// Fallback lists base URLs (http or https, host, no query) of mirrors that
	// are asked after Mirror and before the registry itself.
	Fallback []string
	// Registries names registries as images do ("ghcr.io", "reg.example:5000"),
	// for runtimes that have no word for "all of them" and for those whose
	// directories hide the default.
	Registries []string
	// Restart lets Apply restart the runtime where it has to read its
	// configuration again. Without it the plan only says so.
	Restart bool
}

// MirrorURL is the mirror's base URL, as hosts.toml names it.
func (c Config) MirrorURL() string { return "http://" + c.Mirror.String() }

// Kind says what a Change is.
type Kind string

// The kinds of changes.
const (
	// File creates, edits or removes a file.
	File Kind = "file"
	// Setting sets something that is no file, by the target's own means.
	Setting Kind = "setting"
	// Restart makes a service read its configuration again.
	Restart Kind = "restart"
	// Note changes nothing; it is what an operator should know.
	Note Kind = "note"
	// Warning changes nothing either: something keeps some pulls, or all, from
	// going through the mirror.
	Warning Kind = "warning"
)

// Change is one step of a plan.
type Change struct {
	Kind Kind
	// Path is the file as the node sees it, without Node.Root; the name of a
	// Setting; the unit of a Restart.
	Path string
	// Before and After are the whole content of a File, or a Setting as text;
	// nil means there is none.
	Before, After []byte
	// Mode is given to a File that is created; one that exists keeps its own,
	// and its owner. Zero means 0644.
	Mode fs.FileMode
	// Why is one sentence for the operator.
	Why string
	// Advice marks a Restart that is only told of.
	Advice bool
	// Reload marks a Restart that takes no more than a reload of the service.
	Reload bool

	// undo is the record a File is restored from; nil when it is written.
	undo *record
	// leftover marks a name of ours that a run that was killed left behind.
	leftover bool
	// check reads a File back the way the runtime does, once it is written; a
	// file that fails it is put back as it was.
	check func() error
}

// Changes reports whether applying c does anything.
func (c Change) Changes() bool {
	switch c.Kind {
	case File, Setting:
		return c.undo != nil || c.leftover || (c.Before == nil) != (c.After == nil) || !bytes.Equal(c.Before, c.After)
	case Restart:
		return !c.Advice
	default:
		return false
	}
}

// Action is one word for what becomes of a File or a Setting: "create", "edit"
// or "remove"; "none" when its content stays; for the other kinds the kind.
func (c Change) Action() string {
	switch {
	case c.Kind != File && c.Kind != Setting:
		return string(c.Kind)
	case c.Before == nil && c.After == nil, c.Before != nil && c.After != nil && bytes.Equal(c.Before, c.After):
		return "none"
	case c.Before == nil:
		return "create"
	case c.After == nil:
		return "remove"
	default:
		return "edit"
	}
}

// note and warning are changes that only tell.
func note(path, why string) Change    { return Change{Kind: Note, Path: path, Why: why} }
func warning(path, why string) Change { return Change{Kind: Warning, Path: path, Why: why} }
