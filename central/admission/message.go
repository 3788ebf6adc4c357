package admission

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/larder-registry/larder/internal/policy"
)

// Bounds on what is said, in bytes. An object may be 3 MiB of bad images.
const (
	// maxMessage is what of a denial reaches the person: a long page.
	maxMessage = 32 << 10
	// maxWarning and maxWarnings are what an API server passes on of one
	// warning and of all together, those of other webhooks included; it cuts
	// off the rest (apiserver's endpoints/filters/warning.go).
	maxWarning  = 256
	maxWarnings = 3500
	// maxAnnotation keeps the audit log, which repeats it for every request,
	// short.
	maxAnnotation = 512
	// maxPlaces is how many places of one image are named.
	maxPlaces = 10
	// maxShown is how much of an image's own text is repeated.
	maxShown = 160
)

// response says what becomes of the request, to the API server and to people.
func (out outcome) response(r *request) response {
	resp := response{UID: r.UID, Allowed: out.decision != denied, AuditAnnotations: out.annotations(), Warnings: out.warnings()}
	if !resp.Allowed {
		resp.Status = &status{Code: http.StatusForbidden, Reason: "Forbidden", Message: out.message(r.Namespace)}
	}
	return resp
}

// message lists what is denied, for somebody who may not know that there is a
// policy, and who wants to put everything right at once.
func (out outcome) message(namespace string) string {
	var lines []string
	total, left := 0, 0
	for _, b := range out.bad {
		if b.mode != policy.Enforce {
			continue
		}
		line := fmt.Sprintf("image %s at %s: %s", b.shown(), b.where(), b.verdict.Reason)
		if total += len(line); total > maxMessage && len(lines) > 0 {
			left++
			continue
		}
		lines = append(lines, cut(line, maxMessage))
	}
	head := "the image policy of this cluster does not let this run"
	if namespace != "" {
		head += " in namespace " + namespace
	}
	if len(lines) == 1 && left == 0 {
		return head + ": " + lines[0]
	}
	head += fmt.Sprintf(" (%d images):", len(lines)+left)
	for _, line := range lines {
		head += "\n- " + line
	}
	if left > 0 {
		head += fmt.Sprintf("\n- and %d more images", left)
	}
	return head
}

// warnings tells of images that run for now, or that a workload's pods will be
// denied for.
func (out outcome) warnings() (lines []string) {
	total, left := 0, 0
	for _, b := range out.bad {
		if b.mode != policy.Warn {
			continue
		}
		what := "is against the image policy of this cluster, which will deny it once it is enforced"
		if b.verdict.Mode == policy.Enforce {
			what = "will not run, its pods will be denied"
		}
		line := plain(fmt.Sprintf("image %s at %s %s: %s", quoted(b.ref, maxShown/2), b.places[0], what, b.verdict.Reason))
		line = cut(line, maxWarning)
		if total += len(line); total > maxWarnings {
			left++
			continue
		}
		lines = append(lines, line)
	}
	if left > 0 {
		lines = append(lines, fmt.Sprintf("and %d more images", left))
	}
	return lines
}

// annotations are for the cluster's audit log.
func (out outcome) annotations() map[string]string {
	a := map[string]string{"decision": out.decision, "policy": out.revision}
	if out.mode != "" {
		a["mode"] = string(out.mode)
	}
	if out.why != "" {
		a["reason"] = out.why
	}
	if len(out.bad) > 0 {
		texts := make([]string, 0, len(out.bad))
		total := 0
		for _, b := range out.bad {
			text := fmt.Sprintf("%s (%s)", quoted(b.ref, maxShown), b.verdict.Rule)
			if total += len(text) + 2; total > maxAnnotation && len(texts) > 0 {
				texts = append(texts, fmt.Sprintf("and %d more", len(out.bad)-len(texts)))
				break
			}
			texts = append(texts, text)
		}
		a["images"] = strings.Join(texts, ", ")
	}
	return a
}

// shown is the image as it was written, and how it was read if that is not the
// same.
func (b badImage) shown() string {
	s := quoted(b.ref, maxShown)
	if n := b.verdict.Normalized; n != "" && n != b.ref {
		s += " (" + cut(n, maxShown) + ")"
	}
	return s
}

// where names the image's places.
func (b badImage) where() string {
	if more := len(b.places) - maxPlaces; more > 0 {
		return strings.Join(b.places[:maxPlaces], ", ") + fmt.Sprintf(" and %d more places", more)
	}
	return strings.Join(b.places, ", ")
}

// quoted shows text from outside: escaped, and cut.
func quoted(s string, most int) string { return strconv.QuoteToASCII(cut(s, most)) }

// cut shortens s to most bytes, and says so.
func cut(s string, most int) string {
	const end = "..."
	if len(s) <= most {
		return s
	}
	most -= len(end)
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + end
}

// plain leaves what may stand in a Warning header (RFC 7234 section 5.5, as the
// API server checks it): printable ASCII.
func plain(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
}
