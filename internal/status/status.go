// Package status is what a Larder process says of itself: the document behind
// the status page, status.json and larder status. docs/status.md describes its
// form, which only grows: a field is added, never renamed.
//
// It holds the nouns ([Document] and its parts), what keeps them bounded
// ([Select], [Events], [History], [Cache]), and what of them is for everybody
// ([Document.Redact]). It finds nothing out: the modes tell what they hold, in
// their files named status.go, and cmd/larder puts it together.
//
// It refuses to grow: every list says how many there are and holds a few.
// internal/admin shows it over HTTP.
package status

import "time"

// Schema is the version of the document's form. It changes when something is
// renamed or taken away.
const Schema = 1

// Document is what a process says of itself at one moment. Parts that its mode
// does not have are nil. Sizes are bytes.
type Document struct {
	Schema  int    `json:"schema"`
	Mode    string `json:"mode"` // "mirror" or "central"
	Version string `json:"version"`
	Host    string `json:"host"`
	// Names is false when names that not everybody may read were left out.
	Names   bool      `json:"names"`
	At      time.Time `json:"at"`
	Started time.Time `json:"started"`
	Ready   bool      `json:"ready"`
	Checks  []Check   `json:"checks"`
	Disk    *Disk     `json:"disk,omitempty"`
	// Traffic is by registry, what is served most first.
	Traffic *List[Traffic] `json:"traffic,omitempty"`
	History *Series        `json:"history,omitempty"`
	// Fills are the blobs being brought in, the largest first.
	Fills     *List[Fill]     `json:"fills,omitempty"`
	Upstreams *List[Upstream] `json:"upstreams,omitempty"`
	Images    *List[Image]    `json:"images,omitempty"`
	// Repositories are those of larder central, the largest first.
	Repositories *List[Repository] `json:"repositories,omitempty"`
	Reviews      *Reviews          `json:"reviews,omitempty"`
	// Errors are the last warnings and errors of the log, the latest first.
	Errors *List[Event] `json:"errors,omitempty"`
}

// List is a part of something long.
type List[T any] struct {
	// Total is how many there are, Bytes what they hold together where that
	// means anything.
	Total int   `json:"total"`
	Bytes int64 `json:"bytes,omitempty"`
	// At is when that was so, where it is not found out anew each time.
	At    time.Time `json:"at,omitzero"`
	Items []T       `json:"items"`
}

// More is how many are not in Items.
func (l *List[T]) More() int { return max(l.Total-len(l.Items), 0) }

// First makes a list of at most n of all.
func First[T any](all []T, n int) *List[T] {
	return &List[T]{Total: len(all), Items: append([]T{}, all[:min(n, len(all))]...)}
}

// Check is one condition for being ready; Problem is empty while it holds.
type Check struct {
	Name     string `json:"name"`
	Problem  string `json:"problem,omitempty"`
	Advisory bool   `json:"advisory,omitempty"`
}

// Disk is what lies in the data directory, against its limits.
type Disk struct {
	Bytes int64 `json:"bytes"`
	// Arriving is what is being brought in, or was and can be resumed.
	Arriving int64 `json:"arriving"`
	// Limit bounds Bytes and Arriving together; 0 for no such limit.
	Limit int64 `json:"limit"`
	Blobs int   `json:"blobs"`
	// Free and Total are the file system's, -1 if it does not say; MinFree is
	// what has to stay free of it.
	Free    int64 `json:"free"`
	Total   int64 `json:"total"`
	MinFree int64 `json:"min_free"`
	// Evictions counts evicted blobs since the start, by reason.
	Evictions map[string]uint64 `json:"evictions,omitempty"`
	// Problem says why nothing can be kept just now.
	Problem string `json:"problem,omitempty"`
}

// Traffic is what was asked of one registry since the start.
type Traffic struct {
	Registry string `json:"registry"`
	// Requests are those for blobs and image manifests, Hits those of them
	// that were answered without fetching, and Misses those with nothing.
	Requests int64 `json:"requests"`
	Hits     int64 `json:"hits"`
	Misses   int64 `json:"misses"`
	// Saved was sent without fetching it for that, Passed was fetched for
	// it. Fetched is what came from upstream, sent or not.
	Saved   int64 `json:"saved_bytes"`
	Passed  int64 `json:"passed_bytes"`
	Fetched int64 `json:"fetched_bytes"`
	Stale   int64 `json:"stale"`
	Denied  int64 `json:"denied"`
}

// Sum adds the traffic of all registries.
func Sum(all []Traffic) (sum Traffic) {
	for _, t := range all {
		sum.Requests += t.Requests
		sum.Hits += t.Hits
		sum.Misses += t.Misses
		sum.Saved += t.Saved
		sum.Passed += t.Passed
		sum.Fetched += t.Fetched
		sum.Stale += t.Stale
		sum.Denied += t.Denied
	}
	return sum
}

// Fill is a blob being brought in.
type Fill struct {
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	// Size is -1 until it is known, Bytes what of it is there.
	Size  int64 `json:"size"`
	Bytes int64 `json:"bytes"`
	// Rate is bytes a second, since it began.
	Rate      int64     `json:"rate"`
	Began     time.Time `json:"began"`
	Followers int       `json:"followers"`
	Streams   int       `json:"streams"`
	// Ahead: no client has asked for it yet.
	Ahead bool `json:"ahead,omitempty"`
	// Private: not everybody may know that there is such a thing.
	Private bool `json:"private,omitempty"`
}

// Upstream is one endpoint that was asked lately.
type Upstream struct {
	Endpoint string `json:"endpoint"`
	Registry string `json:"registry"`
	// Breaker is "closed", "half-open" or "open"; Until is when an open one
	// lets a request through.
	Breaker  string    `json:"breaker"`
	Failures int       `json:"failures"`
	Until    time.Time `json:"until,omitzero"`
	// Remaining is what is left of the registry's rate limit, as it said
	// last; nil if it said nothing.
	Remaining *int64 `json:"ratelimit_remaining,omitempty"`
	// QuietUntil is when it may be asked again, after it asked for quiet.
	QuietUntil time.Time `json:"quiet_until,omitzero"`
	// Error is what went wrong last, Reason the same in a word.
	Error   string    `json:"error,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	ErrorAt time.Time `json:"error_at,omitzero"`
}

// Image is one that is held: a tag, or an image manifest without one.
type Image struct {
	Registry   string `json:"registry,omitempty"`
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	Digest     string `json:"digest"`
	// Kind is "index", "image" or "artifact", or else its media type.
	Kind string `json:"kind"`
	// Platforms are those held, of Listed that the image has.
	Platforms []string `json:"platforms,omitempty"`
	Listed    int      `json:"platforms_listed,omitempty"`
	// Size is what is held of it; content that other images share counts for
	// each of them.
	Size int64 `json:"size"`
	// Used is when it was last used at a mirror, Pushed when it was pushed.
	Used      time.Time `json:"used,omitzero"`
	Pushed    time.Time `json:"pushed,omitzero"`
	Confirmed time.Time `json:"confirmed,omitzero"`
	Pinned    bool      `json:"pinned,omitempty"`
	// Warm: the configuration has it brought in before anybody asks.
	Warm bool `json:"warm,omitempty"`
	// Partial: some of it is not held.
	Partial   bool `json:"partial,omitempty"`
	Private   bool `json:"private,omitempty"`
	Referrers int  `json:"referrers,omitempty"`
}

// when is what images are ordered by in time.
func (i *Image) when() time.Time {
	if i.Used.IsZero() {
		return i.Pushed
	}
	return i.Used
}

// Name is registry/repository, or one of them.
func (i *Image) Name() string {
	if i.Registry == "" || i.Repository == "" {
		return i.Registry + i.Repository
	}
	return i.Registry + "/" + i.Repository
}

// Repository is one that larder central has.
type Repository struct {
	Name string `json:"name"`
	// Size is of all its blobs and image manifests, each counted once.
	Size      int64     `json:"size"`
	Tags      int       `json:"tags"`
	Manifests int       `json:"manifests"`
	Referrers int       `json:"referrers"`
	Pushed    time.Time `json:"pushed,omitzero"`
	Private   bool      `json:"private,omitempty"`
}

// Reviews is what the admission webhook was asked.
type Reviews struct {
	// Counts are since the start, by decision: "allowed", "denied",
	// "would_deny", "skipped", "error".
	Counts map[string]int64 `json:"counts"`
	// Revision is the policy's in force.
	Revision string `json:"revision"`
	// Denied are the last that were denied or would be, Allowed the last that
	// were let through; the latest first.
	Denied  []Verdict `json:"denied"`
	Allowed []Verdict `json:"allowed"`
}

// Verdict is what became of one review.
type Verdict struct {
	At        time.Time `json:"at"`
	Namespace string    `json:"namespace"`
	// Object is kind/name of what owns the object, or of itself.
	Object    string `json:"object"`
	Operation string `json:"operation"`
	Resource  string `json:"resource"`
	Decision  string `json:"decision"`
	Mode      string `json:"mode,omitempty"`
	// Image is the first the policy has something against, of Images; Rule
	// says what.
	Image  string `json:"image,omitempty"`
	Images int    `json:"images,omitempty"`
	Rule   string `json:"rule,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
}
