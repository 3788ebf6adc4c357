package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"github.com/larder-registry/larder/central/auth"
	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/oci"
)

// accessFlags is what larder central is told on the command line about who may
// do what; the rest is in the configuration file.
type accessFlags struct {
	user         string
	passwordFile string
	plainHTTP    bool
}

func (f *accessFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.user, "user", "", "`NAME` of a user of the registry who may do everything, with --password-file")
	flags.StringVar(&f.passwordFile, "password-file", "", "`FILE` with that user's password; read again when it changes")
	flags.BoolVar(&f.plainHTTP, "plain-http", false, "serve the registry without TLS, when something else protects passwords on their way")
}

// check refuses what cannot be meant.
func (f *accessFlags) check() error {
	if (f.user == "") != (f.passwordFile == "") {
		return usageErrorf("--user and --password-file belong together")
	}
	return nil
}

// access is who may do what at the registry; checkAccess makes it and openAccess
// opens it.
type access struct {
	*auth.Authority
	settings  auth.Settings
	providers []auth.Provider
	reviewer  auth.Reviewer
	// tls is what the registry listens with; nil for plain HTTP.
	tls *tls.Config
	// reload looks whether users and rules have changed.
	reload func()
	// clients are closed at the end.
	clients []*http.Client
}

// tokenKey is the file in the data directory that holds what tokens are signed
// with, unless the configuration names another.
const tokenKey = "token.key"

// checkAccess reads users, rules, who vouches for tokens and the listener's TLS.
func (c *central) checkAccess() (a *access, err error) {
	a = &access{}
	if a.tls, err = c.registryTLS(); err != nil {
		return nil, err
	}
	if a.settings, err = c.flags.access.settings(c.cfg.Central); err != nil {
		return nil, err
	}
	return a, a.findProviders(c.cfg.Central, c.log)
}

// openAccess makes what decides. The directory has to be there. Close it at the
// end.
func (c *central) openAccess(a *access, dataDir string) (err error) {
	cfg := c.cfg.Central
	key := cfg.Tokens.KeyFile
	if key == "" {
		key = filepath.Join(dataDir, tokenKey)
		if err := auth.EnsureKey(key); err != nil {
			return err
		}
	}
	a.Authority, err = auth.New(auth.Config{
		Settings:      a.settings,
		KeyFile:       key,
		Providers:     a.providers,
		Reviewer:      a.reviewer,
		TokenLifetime: time.Duration(cfg.Tokens.Lifetime),
		PublicURL:     cfg.Tokens.PublicURL,
		Log:           c.log,
		Registerer:    c.metrics,
	})
	if err != nil {
		return fmt.Errorf("decide who may do what: %w", err)
	}
	a.reload = (&accessReloader{c: c, authority: a.Authority, seen: c.flags.access.read(c.flags.config)}).look
	c.tellAccess(a.settings, len(a.providers))
	return nil
}

func (a *access) close() {
	for _, client := range a.clients {
		client.CloseIdleConnections()
	}
}

// registryTLS makes the listener's TLS. Passwords go over the wire, so there is
// no way around it but an explicit one.
func (c *central) registryTLS() (*tls.Config, error) {
	f, settings := c.flags, c.cfg.Central.TLS
	switch {
	case (f.tlsCert == "") != (f.tlsKey == ""):
		return nil, usageErrorf("--tls-cert and --tls-key belong together")
	case f.tlsCert == "" && !f.access.plainHTTP:
		return nil, usageErrorf("the registry is sent passwords: give --tls-cert and --tls-key, or --plain-http if something else protects them")
	case f.access.plainHTTP && f.tlsCert != "" && !slices.Contains(f.serve, "webhook"):
		return nil, usageErrorf("--plain-http and --tls-cert: give one of them")
	case f.access.plainHTTP && settings.ClientCAFile != "":
		return nil, usageErrorf("--plain-http: there are no client certificates without TLS, and central.tls.client_ca_file asks for them")
	case f.access.plainHTTP:
		return nil, nil
	}
	made, err := auth.ServerTLS(auth.TLSConfig{
		CertFile: f.tlsCert, KeyFile: f.tlsKey,
		ClientCAFile: settings.ClientCAFile, RequireClient: settings.RequireClientCert,
		Protocols: []string{"h2", "http/1.1"},
		Log:       c.log,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare TLS: %w", err)
	}
	return made, nil
}

// settings gives users and rules as configuration and flags have them.
func (f accessFlags) settings(cfg config.Central) (auth.Settings, error) {
	s := auth.Settings{HtpasswdFile: cfg.HtpasswdFile}
	for _, u := range cfg.Users {
		s.Users = append(s.Users, u.User())
	}
	for _, a := range cfg.Access {
		s.Rules = append(s.Rules, a.Rule())
	}
	if cfg.AnonymousPull {
		s.Rules = append(s.Rules, auth.Rule{Subjects: []string{"*"}, Repositories: []string{"*"}, Actions: []oci.Action{oci.ActionPull}})
	}
	if f.user == "" {
		return s, nil
	}
	content, err := os.ReadFile(f.passwordFile)
	if err != nil {
		return s, usageErrorf("--password-file: %v", err)
	}
	user := auth.User{Name: f.user, Password: strings.TrimRight(string(content), "\r\n")}
	if user.Password == "" {
		return s, usageErrorf("--password-file %s: it holds no password", f.passwordFile)
	}
	if err := auth.CheckUser(user); err != nil {
		return s, usageErrorf("--user and --password-file: %v", err)
	}
	s.Users = append(s.Users, user)
	s.Rules = append(s.Rules, auth.Rule{
		Subjects: []string{"user:" + f.user}, Repositories: []string{"*"},
		Actions: []oci.Action{oci.ActionPull, oci.ActionPush, oci.ActionDelete},
	})
	return s, nil
}

// findProviders makes those who vouch for tokens, and who gives rights by roles.
func (a *access) findProviders(cfg config.Central, log *logrus.Entry) error {
	client := func(cfg auth.ClientConfig) (*http.Client, error) {
		made, err := auth.NewClient(cfg)
		if err == nil {
			a.clients = append(a.clients, made)
		}
		return made, err
	}
	for _, i := range cfg.Issuers {
		c, err := client(auth.ClientConfig{CAFile: i.CAFile, TokenFile: i.TokenFile, Proxy: http.ProxyFromEnvironment})
		if err != nil {
			return fmt.Errorf("reach issuer %s: %w", i.Name, err)
		}
		made, err := auth.NewIssuer(auth.IssuerConfig{
			Name: i.Name, URL: i.URL, Audiences: i.Audiences, JWKSURL: i.JWKSURL, GroupsClaim: i.GroupsClaim, Client: c, Log: log,
		})
		if err != nil {
			return err
		}
		a.providers = append(a.providers, made)
	}
	k := cfg.Kubernetes
	if k == nil {
		return nil
	}
	api := k.APIURL
	if api == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return usageErrorf("central.kubernetes: this is no pod, as KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: give api_url and service_account_dir")
		}
		api = "https://" + net.JoinHostPort(host, port)
	}
	c, err := client(auth.ClientConfig{CAFile: filepath.Join(k.ServiceAccountDir, "ca.crt"), TokenFile: filepath.Join(k.ServiceAccountDir, "token")})
	if err != nil {
		return fmt.Errorf("reach cluster: %w", err)
	}
	cluster, err := auth.NewCluster(auth.ClusterConfig{Name: "kubernetes", URL: api, Audiences: k.Audiences, Issuer: k.Issuer, Client: c})
	if err != nil {
		return err
	}
	if k.ReviewAccess {
		a.reviewer = cluster
	}
	// Last, since it is asked about tokens of whatever issuer.
	a.providers = append(a.providers, cluster)
	return nil
}

// tellAccess states what is in force, and what cannot be meant.
func (c *central) tellAccess(s auth.Settings, providers int) {
	c.log.WithFields(logrus.Fields{
		"users": len(s.Users), "htpasswd": cmp.Or(s.HtpasswdFile, "none"), "rules": len(s.Rules), "providers": providers,
		"tls": !c.flags.access.plainHTTP,
	}).Info("access to the registry")
	if roles := c.cfg.Central.Kubernetes != nil && c.cfg.Central.Kubernetes.ReviewAccess; len(s.Rules) == 0 && !roles {
		c.log.Warn("nobody may do anything at the registry: write central.access into the configuration file, or give --user and --password-file")
	}
}

// read gives what users and rules are made of, to see whether it has changed.
func (f accessFlags) read(file string) []byte {
	var all []byte
	for _, name := range []string{file, f.passwordFile} {
		if name == "" {
			continue
		}
		content, err := os.ReadFile(name)
		if err != nil {
			content = []byte(err.Error())
		}
		all = append(append(all, content...), 0)
	}
	return all
}

// accessReloader takes users and rules from the configuration file, and the
// password from its own, when they have changed.
type accessReloader struct {
	c         *central
	authority *auth.Authority
	seen      []byte
}

// look takes over what has changed. What cannot be used changes nothing, and is
// told of once.
func (r *accessReloader) look() {
	content := r.c.flags.access.read(r.c.flags.config)
	if bytes.Equal(content, r.seen) {
		return
	}
	r.seen = content
	settings, err := r.settings()
	if err == nil {
		err = r.authority.Update(settings)
	}
	if err != nil {
		r.c.log.WithError(err).Error("changed users and rules of the registry are refused; those that were in force stay")
		return
	}
	r.c.log.WithFields(logrus.Fields{"users": len(settings.Users), "rules": len(settings.Rules)}).Info("users and rules of the registry were read again")
}

func (r *accessReloader) settings() (auth.Settings, error) {
	cfg := config.Default()
	if r.c.flags.config != "" {
		var err error
		if cfg, _, err = config.Load(r.c.flags.config); err != nil {
			return auth.Settings{}, err
		}
	}
	return r.c.flags.access.settings(cfg.Central)
}
