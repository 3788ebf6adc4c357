package upstream

import (
	"regexp"
	"strings"
)

// ecrHost is what the name of an ECR registry says: where to ask for a token,
// and how. Registries with the same ecrHost share a token, whatever their
// account: a token is good for all that its principal may read in a region.
type ecrHost struct {
	region    string
	public    bool
	fips      bool
	dualStack bool
}

// partitions are AWS's separate clouds, with the domains their registries are
// in (the SDK's partitions.json; ECR user guide, "Making requests to Amazon ECR
// registries"): classic names and dual-stack names. A region belongs to one
// partition only, so a name that mixes them is no registry's.
var partitions = []struct {
	regions            *regexp.Regexp
	classic, dualStack string
}{
	{regexp.MustCompile(`^(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d+$`), "amazonaws.com", "on.aws"},
	{regexp.MustCompile(`^us-gov-[a-z]+-\d+$`), "amazonaws.com", "on.aws"},
	{regexp.MustCompile(`^cn-[a-z]+-\d+$`), "amazonaws.com.cn", "on.amazonwebservices.com.cn"},
	{regexp.MustCompile(`^eusc-[a-z]+-[a-z]+-\d+$`), "amazonaws.eu", "on.amazonwebservices.eu"},
	{regexp.MustCompile(`^us-iso-[a-z]+-\d+$`), "c2s.ic.gov", "on.aws.ic.gov"},
	{regexp.MustCompile(`^us-isob-[a-z]+-\d+$`), "sc2s.sgov.gov", "on.aws.scloud"},
	{regexp.MustCompile(`^eu-isoe-[a-z]+-\d+$`), "cloud.adc-e.uk", "on.cloud-aws.adc-e.uk"},
	{regexp.MustCompile(`^us-isof-[a-z]+-\d+$`), "csp.hci.ic.gov", "on.aws.hci.ic.gov"},
}

// The two forms of a private registry's name, and the region in it:
// <account>.dkr.ecr.<region>.<domain> and <account>.dkr-ecr.<region>.<domain>,
// both also with -fips.
var (
	ecrClassic   = regexp.MustCompile(`^\d{12}\.dkr\.ecr(-fips)?\.([a-z0-9-]+)\.(.+)$`)
	ecrDualStack = regexp.MustCompile(`^\d{12}\.dkr-ecr(-fips)?\.([a-z0-9-]+)\.(.+)$`)
)

// parseECRHost reads a host as clients name it, with or without a port; ok is
// false for what is not an ECR registry. Only names in AWS's own domains are,
// since it decides where a token is sent.
func parseECRHost(host string) (h ecrHost, ok bool) {
	host = strings.ToLower(bareHost(host))
	switch host {
	case "public.ecr.aws":
		return ecrHost{region: "us-east-1", public: true}, true
	case "ecr-public.aws.com":
		return ecrHost{region: "us-east-1", public: true, dualStack: true}, true
	}
	match := ecrClassic.FindStringSubmatch(host)
	if match == nil {
		match, h.dualStack = ecrDualStack.FindStringSubmatch(host), true
	}
	if match == nil {
		return ecrHost{}, false
	}
	h.fips, h.region = match[1] != "", match[2]
	for _, p := range partitions {
		if p.regions.MatchString(h.region) && (h.dualStack && match[3] == p.dualStack || !h.dualStack && match[3] == p.classic) {
			return h, true
		}
	}
	return ecrHost{}, false
}

// bareHost is a host without its port.
func bareHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		return host[:i]
	}
	return host
}
