package upstream

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// isGoogle reports whether host is a registry of Google's: Artifact Registry,
// or Container Registry's names, which it serves.
func isGoogle(host string) bool {
	host = strings.ToLower(bareHost(host))
	return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, "-docker.pkg.dev") || host == "docker.pkg.dev"
}

// googleSource gets access tokens of the machine's or the pod's own service
// account from the metadata server (Google Cloud, "Authenticate workloads using
// service accounts"). They are good for all of Google's registries. A service
// account's key needs none of this: it is the password of the user _json_key,
// or _json_key_base64.
type googleSource struct {
	whole
	metadata *http.Client
	env      func(string) string
	now      func() time.Time
}

// login implements source.
func (g *googleSource) login(ctx context.Context, _ string) (login, error) {
	host := cmp.Or(g.env("GCE_METADATA_HOST"), "169.254.169.254")
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	header, err := askMetadata(ctx, g.metadata, "http://"+host+"/computeMetadata/v1/instance/service-accounts/default/token",
		http.Header{"Metadata-Flavor": {"Google"}}, &answer)
	switch {
	case errors.Is(err, errNoMetadata):
		return login{}, nil
	case err != nil:
		return login{}, err
	case header.Get("Metadata-Flavor") != "Google":
		return login{}, nil // another cloud's
	case answer.AccessToken == "":
		return login{}, errors.New("ask metadata service: its answer holds no token")
	}
	return login{
		Credential: auth.Credential{Username: "oauth2accesstoken", Password: answer.AccessToken},
		expires:    lifeFrom(g.now(), answer.ExpiresIn),
	}, nil
}

// lifeFrom is when something ends that lasts for seconds, by this machine's
// clock; an hour from now if that is not said or makes no sense.
func lifeFrom(now time.Time, seconds int64) time.Time {
	if seconds <= 0 || seconds > int64(24*time.Hour/time.Second) {
		seconds = 3600
	}
	return now.Add(time.Duration(seconds) * time.Second)
}
