package upstream

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// azureClouds are Azure's, by the domain of their registries: where identities
// are proved, and what a token has to be for to be exchanged at a registry.
var azureClouds = []struct{ suffix, authority, audience string }{
	{".azurecr.io", "https://login.microsoftonline.com/", "https://containerregistry.azure.net/"},
	{".azurecr.cn", "https://login.chinacloudapi.cn/", "https://management.chinacloudapi.cn/"},
	{".azurecr.us", "https://login.microsoftonline.us/", "https://management.usgovcloudapi.net/"},
}

const (
	// azureMetadata is where virtual machines ask for managed identities.
	azureMetadata = "http://169.254.169.254"
	// acrLogin is how long a registry's refresh token lasts, if it does not
	// say otherwise itself (ACR, "Exchange AAD access token").
	acrLogin = 3 * time.Hour
)

// isAzure reports whether host is an Azure container registry.
func isAzure(host string) bool {
	host = strings.ToLower(bareHost(host))
	for _, cloud := range azureClouds {
		if name, ok := strings.CutSuffix(host, cloud.suffix); ok && name != "" {
			return true
		}
	}
	return false
}

// azureSource exchanges the machine's or the pod's own identity for a refresh
// token of one registry. The identity is the service account's where workload
// identity is set up (AZURE_FEDERATED_TOKEN_FILE, AZURE_CLIENT_ID,
// AZURE_TENANT_ID), else the machine's managed identity, which AZURE_CLIENT_ID
// chooses if there are several.
type azureSource struct {
	whole
	base      *url.URL // of the registry
	transport http.RoundTripper
	metadata  *http.Client
	env       func(string) string
	now       func() time.Time
}

// login implements source.
func (a *azureSource) login(ctx context.Context, _ string) (login, error) {
	authority, audience := a.cloud()
	token, err := a.identity(ctx, authority, audience)
	if errors.Is(err, errNoMetadata) {
		return login{}, nil
	}
	if err != nil {
		return login{}, fmt.Errorf("prove identity to Azure: %w", err)
	}
	form := url.Values{"grant_type": {"access_token"}, "service": {a.base.Host}, "access_token": {token}}
	if tenant := a.env("AZURE_TENANT_ID"); tenant != "" {
		form.Set("tenant", tenant)
	}
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	err = postForm(ctx, a.transport, a.base.Scheme+"://"+a.base.Host+"/oauth2/exchange", form, &answer)
	if refused, ok := errors.AsType[*statusError](err); ok && (refused.status == http.StatusUnauthorized || refused.status == http.StatusForbidden) {
		return login{}, nil // the identity has no rights there
	}
	if err != nil {
		return login{}, fmt.Errorf("exchange token: %w", err)
	}
	if answer.RefreshToken == "" {
		return login{}, errors.New("exchange token: the answer holds none")
	}
	expires := a.now().Add(acrLogin)
	if at, ok := jwtExpiry(answer.RefreshToken); ok && at.Before(a.now().Add(24*time.Hour)) {
		expires = at
	}
	return login{Credential: auth.Credential{RefreshToken: answer.RefreshToken}, expires: expires}, nil
}

// cloud tells where the registry is.
func (a *azureSource) cloud() (authority, audience string) {
	for _, cloud := range azureClouds {
		if strings.HasSuffix(bareHost(a.base.Host), cloud.suffix) {
			return cmp.Or(a.env("AZURE_AUTHORITY_HOST"), cloud.authority), cloud.audience
		}
	}
	return cmp.Or(a.env("AZURE_AUTHORITY_HOST"), azureClouds[0].authority), azureClouds[0].audience
}

// identity gets an access token for audience, errNoMetadata if this machine and
// this process have no identity.
func (a *azureSource) identity(ctx context.Context, authority, audience string) (string, error) {
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	client := a.env("AZURE_CLIENT_ID")
	if file := a.env("AZURE_FEDERATED_TOKEN_FILE"); file != "" {
		assertion, err := readSecret(file)
		if err != nil {
			return "", err
		}
		form := url.Values{
			"client_id":             {client},
			"grant_type":            {"client_credentials"},
			"scope":                 {audience + ".default"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {strings.TrimSpace(string(assertion))},
		}
		where := strings.TrimRight(authority, "/") + "/" + url.PathEscape(a.env("AZURE_TENANT_ID")) + "/oauth2/v2.0/token"
		if err := postForm(ctx, a.transport, where, form, &answer); err != nil {
			return "", err
		}
	} else {
		query := url.Values{"api-version": {"2018-02-01"}, "resource": {audience}}
		if client != "" {
			query.Set("client_id", client)
		}
		where := cmp.Or(strings.TrimRight(a.env("AZURE_POD_IDENTITY_AUTHORITY_HOST"), "/"), azureMetadata) + "/metadata/identity/oauth2/token?" + query.Encode()
		if _, err := askMetadata(ctx, a.metadata, where, http.Header{"Metadata": {"true"}}, &answer); err != nil {
			return "", err
		}
	}
	if answer.AccessToken == "" {
		return "", errors.New("the answer holds no token")
	}
	return answer.AccessToken, nil
}

// jwtExpiry reads when a JSON web token ends (RFC 7519 section 4.1.4). The
// signature is the registry's to check.
func jwtExpiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	content, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Expires json.Number `json:"exp"`
	}
	if json.Unmarshal(content, &claims) != nil {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseInt(claims.Expires.String(), 10, 64)
	if err != nil || seconds <= 0 || seconds > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(seconds, 0), true
}
