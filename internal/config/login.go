package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// AWS says with what ECR is asked for a token where the host's name does not.
type AWS struct {
	// Region of the registry; by default the one in the host's name.
	Region string `yaml:"region,omitempty"`
	// RoleARN is a role that is assumed first.
	RoleARN string `yaml:"role_arn,omitempty"`
}

// CredentialProvider is a kubelet credential-provider plugin.
type CredentialProvider struct {
	// Command is the program: a path, or a name in the search path.
	Command string   `yaml:"command"`
	Args    []string `yaml:"args,omitempty"`
	// Env adds NAME=value to the environment it is run in.
	Env []Secret `yaml:"env,omitempty"`
	// APIVersion of the protocol that it speaks, by default
	// credentialprovider.kubelet.k8s.io/v1.
	APIVersion string `yaml:"api_version,omitempty"`
	// Timeout bounds one run; 10 s by default.
	Timeout Duration `yaml:"timeout,omitempty"`
	// CacheDuration is how long an answer is used that does not say so
	// itself; 10 minutes by default.
	CacheDuration Duration `yaml:"cache_duration,omitempty"`
}

// credentials checks that there is one whole pair, and that it can be read.
func (c *checker) credentials(key string, r *Registry) {
	if file, ok := strings.CutPrefix(string(r.Password), "file://"); ok {
		if r.PasswordFile != "" {
			c.problemAt(key+".password", "password and password_file are both given", "keep one of them")
			return
		}
		r.Password, r.PasswordFile = "", file
		c.at[key+".password_file"] = c.at[key+".password"]
	}
	if r.Username == "AWS" && r.Password == "" && r.PasswordFile == "" && namesRegion(r.Host) {
		r.Username = "" // how files for an earlier product ask for ECR's token
	}
	c.onlyOne(key, r)
	switch hasPassword := r.Password != "" || r.PasswordFile != ""; {
	case r.Password != "" && r.PasswordFile != "":
		c.problemAt(key+".password", "password and password_file are both given", "keep one of them")
		return
	case r.Username != "" && !hasPassword:
		c.problemAt(key+".username", "username has no password", "add password_file")
	case r.Username == "" && hasPassword:
		c.problemAt(key, "password has no username", "add username")
	case strings.Contains(r.Username, ":"):
		c.problemAt(key+".username", "a username cannot hold a colon (RFC 7617 section 2)", "")
	}
	if r.PasswordFile != "" {
		r.PasswordFile = c.path(r.PasswordFile)
		if _, err := r.ReadPassword(); err != nil {
			c.problemAt(key+".password_file", err.Error(), "")
		}
	}
	if r.TokenServer != "" {
		c.host(key+".token_server", &r.TokenServer)
	}
	c.provider(key+".credential_provider", r.CredentialProvider)
	c.aws(key+".aws", r)
}

// onlyOne refuses an entry that says in several ways how to log in.
func (c *checker) onlyOne(key string, r *Registry) {
	var ways []string
	if r.Username != "" || r.Password != "" || r.PasswordFile != "" {
		ways = append(ways, "username")
	}
	if r.CredentialProvider != nil {
		ways = append(ways, "credential_provider")
	}
	if r.AWS != nil {
		ways = append(ways, "aws")
	}
	if len(ways) > 1 {
		c.problemAt(key+"."+ways[1], strings.Join(ways, " and ")+" are both given", "keep one of them")
	}
}

// provider checks that the program is there.
func (c *checker) provider(key string, p *CredentialProvider) {
	if p == nil {
		return
	}
	if p.Command == "" {
		c.problemAt(key, "command is missing", "name the program: command: /usr/libexec/ecr-credential-provider")
		return
	}
	if strings.ContainsRune(p.Command, '/') {
		p.Command = c.path(p.Command)
	}
	if _, err := exec.LookPath(p.Command); err != nil {
		text := err.Error()
		if lookup, ok := errors.AsType[*exec.Error](err); ok {
			text = lookup.Err.Error()
		}
		c.problemAt(key+".command", p.Command+" cannot be run: "+text, "")
	}
	for i, env := range p.Env {
		if name, _, ok := strings.Cut(string(env), "="); !ok || name == "" {
			c.problemAt(key+".env["+strconv.Itoa(i)+"]", "not an environment variable", "write NAME=value")
		}
	}
}

// roleARN is the form of an IAM role's name (IAM user guide, "IAM ARNs").
var roleARN = regexp.MustCompile(`^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+$`)

// aws checks that it is known which region to ask, and as whom.
func (c *checker) aws(key string, r *Registry) {
	if r.AWS == nil {
		return
	}
	if r.AWS.Region == "" && !namesRegion(r.Host) {
		c.problemAt(key, "the host's name does not say which region it is in", "add region")
	}
	if r.AWS.RoleARN != "" && !roleARN.MatchString(r.AWS.RoleARN) {
		c.problemAt(key+".role_arn", fmt.Sprintf("%q is not a role's ARN", r.AWS.RoleARN), "write it like arn:aws:iam::123456789012:role/pull")
	}
}

// namesRegion reports whether host looks like one of ECR's own names, which
// mirror/upstream reads.
func namesRegion(host string) bool {
	return strings.Contains(host, ".dkr.ecr") || strings.Contains(host, ".dkr-ecr") ||
		strings.HasPrefix(host, "public.ecr.aws") || strings.HasPrefix(host, "ecr-public.aws.com")
}

// dockerConfig checks that the file is there and is JSON; what is in it is read
// by mirror/upstream.
func (c *checker) dockerConfig(key string, file *string) {
	if *file == "" {
		return
	}
	*file = c.path(*file)
	switch content, err := readSmall(*file); {
	case err != nil:
		c.problemAt(key, err.Error(), "")
	case !json.Valid(content):
		c.problemAt(key, *file+" is not JSON", "give a file like Docker's config.json")
	}
}

// checkAllow accepts what --allow does.
func checkAllow(allow string) error {
	if allow == "any" {
		return nil
	}
	for item := range strings.SplitSeq(allow, ",") {
		item = strings.TrimSpace(item)
		if item == "local" {
			continue
		}
		addr, addrErr := netip.ParseAddr(item)
		if _, err := netip.ParsePrefix(item); err != nil && (addrErr != nil || addr.Zone() != "") {
			return fmt.Errorf("%q is no address and no CIDR prefix", item)
		}
	}
	return nil
}

// ReadPassword returns the entry's password, from its file if it names one, so
// that a secret that was rotated on disk is seen by whoever asks again. A
// line's end after the password does not belong to it.
func (r *Registry) ReadPassword() (Secret, error) {
	if r.PasswordFile == "" {
		return r.Password, nil
	}
	content, err := readSmall(r.PasswordFile)
	if err != nil {
		return "", err
	}
	password := strings.TrimRight(string(content), "\r\n")
	if password == "" {
		return "", fmt.Errorf("read %s: the file is empty", r.PasswordFile)
	}
	return Secret(password), nil
}
