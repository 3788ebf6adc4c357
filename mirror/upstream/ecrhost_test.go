package upstream

import (
	"regexp"
	"testing"
)

func TestParseECRHost(t *testing.T) {
	for host, want := range map[string]ecrHost{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":                {region: "eu-west-1"},
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com:443":            {region: "eu-west-1"},
		"123456789012.DKR.ECR.eu-west-1.amazonaws.com":                {region: "eu-west-1"},
		"123456789012.dkr.ecr.ap-southeast-7.amazonaws.com":           {region: "ap-southeast-7"},
		"123456789012.dkr.ecr.mx-central-1.amazonaws.com":             {region: "mx-central-1"},
		"123456789012.dkr.ecr-fips.us-gov-east-1.amazonaws.com":       {region: "us-gov-east-1", fips: true},
		"123456789012.dkr-ecr.us-gov-west-1.on.aws":                   {region: "us-gov-west-1", dualStack: true},
		"123456789012.dkr-ecr-fips.us-east-2.on.aws":                  {region: "us-east-2", fips: true, dualStack: true},
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":            {region: "cn-north-1"},
		"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": {region: "cn-north-1", dualStack: true},
		"123456789012.dkr.ecr.us-iso-west-1.c2s.ic.gov":               {region: "us-iso-west-1"},
		"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":           {region: "us-isob-east-1"},
		"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":          {region: "eu-isoe-west-1"},
		"123456789012.dkr.ecr.us-isof-east-1.csp.hci.ic.gov":          {region: "us-isof-east-1"},
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":            {region: "eusc-de-east-1"},
		"123456789012.dkr-ecr.eusc-de-east-1.on.amazonwebservices.eu": {region: "eusc-de-east-1", dualStack: true},
		"public.ecr.aws":     {region: "us-east-1", public: true},
		"ecr-public.aws.com": {region: "us-east-1", public: true, dualStack: true},
		"Public.ECR.aws:443": {region: "us-east-1", public: true},
	} {
		if got, ok := parseECRHost(host); !ok || got != want {
			t.Errorf("%s: %+v, %t, want %+v", host, got, ok, want)
		}
	}
	for _, host := range []string{
		"", "docker.io", "amazonaws.com", "dkr.ecr.eu-west-1.amazonaws.com", ".dkr.ecr.eu-west-1.amazonaws.com",
		"12345.dkr.ecr.eu-west-1.amazonaws.com", "x123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", "123456789012.dkr.ecr.eu-west-1.amazonaws.org",
		"123456789012.dkr.ecr.evil.example", "evil.example/123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn", "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
		"123456789012.dkr.ecr.eu-west-1.on.aws", "123456789012.dkr-ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr.eu-west-1.x.amazonaws.com", "123456789012.dkr.ecr..amazonaws.com",
		"123456789012.dkr-ecr.evil.on.aws", "a.public.ecr.aws", "public.ecr.aws.evil.example", "[::1]:5000", "localhost:5000",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.", "123456789012-dkr-ecr.eu-west-1.on.aws",
	} {
		if got, ok := parseECRHost(host); ok {
			t.Errorf("%s: %+v", host, got)
		}
	}
}

// FuzzParseECRHost: only what ends in one of AWS's own domains.
func FuzzParseECRHost(f *testing.F) {
	f.Add("123456789012.dkr.ecr.eu-west-1.amazonaws.com:443")
	f.Add("123456789012.dkr-ecr-fips.us-east-2.on.aws")
	f.Add("public.ecr.aws")
	ours := regexp.MustCompile(`(?i)(\.amazonaws\.(com|com\.cn|eu)|\.on\.aws|\.on\.amazonwebservices\.(com\.cn|eu)|\.(c2s|csp\.hci)\.ic\.gov|\.sc2s\.sgov\.gov|\.cloud\.adc-e\.uk|\.on\.aws\.(ic\.gov|scloud|hci\.ic\.gov)|\.on\.cloud-aws\.adc-e\.uk|^public\.ecr\.aws|^ecr-public\.aws\.com)(:[^:]*)?$`)
	f.Fuzz(func(t *testing.T, host string) {
		if h, ok := parseECRHost(host); ok && (!ours.MatchString(host) || h.region == "") {
			t.Errorf("%q: %+v", host, h)
		}
	})
}
