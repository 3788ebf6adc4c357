package config

import (
	"fmt"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// CentralTagRule names tags that must not move once they are set.
type CentralTagRule struct {
	Repositories []string `yaml:"repositories"`
	// Tags are patterns: "v*".
	Tags []string `yaml:"tags"`
}

// CentralQuota bounds what repositories hold together.
type CentralQuota struct {
	Repositories []string `yaml:"repositories"`
	Size         Limit    `yaml:"size"`
}

// CentralGC says when garbage is collected, and what is garbage.
type CentralGC struct {
	// Every is how often; zero never does it, but when asked.
	Every Duration `yaml:"every"`
	// Grace is how long content stays that no image manifest refers to.
	Grace Duration `yaml:"grace"`
	// UploadAge is how long an upload stays that nothing is added to.
	UploadAge Duration `yaml:"upload_age"`
	// Retention says what goes although nobody deleted it. A repository
	// follows the first rule that names it.
	Retention []CentralRetention `yaml:"retention"`
}

// CentralRetention is a rule of retention; see central.Retention.
type CentralRetention struct {
	Repositories []string `yaml:"repositories"`
	KeepTags     Count    `yaml:"keep_tags,omitempty"`
	KeepPulled   Duration `yaml:"keep_pulled,omitempty"`
	Untagged     Duration `yaml:"untagged,omitempty"`
}

// Count is a number of things.
type Count int

// parse reads a decimal number.
func (c *Count) parse(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return fmt.Errorf("bad number %q; write digits only", s)
	}
	*c = Count(n)
	return nil
}

// MarshalYAML writes the form that parse reads.
func (c Count) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.Itoa(int(c))}, nil
}

// defaultGC returns the settings where a file says nothing.
func defaultGC() CentralGC {
	return CentralGC{
		Every: Duration(time.Hour), Grace: Duration(24 * time.Hour), UploadAge: Duration(24 * time.Hour),
		Retention: []CentralRetention{},
	}
}

func patterns(list []string) []oci.Pattern {
	made := make([]oci.Pattern, len(list))
	for i, s := range list {
		made[i] = oci.Pattern(s)
	}
	return made
}

// Rule gives the entry as the registry reads it.
func (r CentralTagRule) Rule() central.TagRule {
	return central.TagRule{Repositories: patterns(r.Repositories), Tags: r.Tags}
}

// Quota gives the entry as the registry reads it.
func (q CentralQuota) Quota() central.Quota {
	return central.Quota{Repositories: patterns(q.Repositories), Bytes: q.Size.Bytes()}
}

// Rule gives the entry as the registry reads it.
func (r CentralRetention) Rule() central.Retention {
	return central.Retention{
		Repositories: patterns(r.Repositories), KeepTags: int(r.KeepTags),
		KeepPulled: time.Duration(r.KeepPulled), Untagged: time.Duration(r.Untagged),
	}
}

// centralRegistry checks what the registry is told about what it keeps.
func (c *checker) centralRegistry(cfg *Central) {
	for i := range cfg.Hosts {
		c.host(fmt.Sprintf("central.hosts[%d]", i), &cfg.Hosts[i])
	}
	check := func(list string, i int, err error) {
		if err != nil {
			c.problemAt(fmt.Sprintf("central.%s[%d]", list, i), err.Error(), "")
		}
	}
	for i, r := range cfg.ImmutableTags {
		check("immutable_tags", i, r.Rule().Check())
	}
	for i, q := range cfg.Quotas {
		check("quotas", i, q.Quota().Check())
	}
	for i, r := range cfg.GC.Retention {
		check("gc.retention", i, r.Rule().Check())
	}
	if cfg.GC.Grace < Duration(time.Minute) {
		c.problemAt("central.gc.grace", "a push takes longer than that", "write at least 1m; 24h is the default")
	}
	if cfg.GC.Every > 0 {
		c.atLeast("central.gc.every", cfg.GC.Every, Duration(time.Minute))
	}
	c.positive("central.gc.upload_age", cfg.GC.UploadAge)
}

// defaultMinFree is what pushes leave free of the file system.
func defaultMinFree() Limit { return Limit{store.Bytes(1 << 30)} }
