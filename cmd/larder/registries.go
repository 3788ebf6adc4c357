package main

import (
	"os"
	"time"

	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/mirror/upstream"
)

// upstreamRegistries turns the configuration's entries into the upstream
// client's, and names their hosts.
func upstreamRegistries(entries []config.Registry) (registries []upstream.Registry, hosts []string) {
	for _, e := range entries {
		r := upstream.Registry{
			Host:           e.Host,
			PathPrefix:     e.PathPrefix,
			Username:       e.Username,
			Password:       string(e.Password),
			PasswordFile:   e.PasswordFile,
			TokenServer:    e.TokenServer,
			Proof:          e.NeedsProof(),
			Insecure:       e.Insecure,
			CAFile:         e.CAFile,
			ClientCertFile: e.ClientCertFile,
			ClientKeyFile:  e.ClientKeyFile,
			Endpoints:      e.Endpoints,
		}
		if p := e.CredentialProvider; p != nil {
			r.Provider = &upstream.Plugin{
				Command: p.Command, Args: p.Args, APIVersion: p.APIVersion,
				Timeout: time.Duration(p.Timeout), CacheDuration: time.Duration(p.CacheDuration),
			}
			for _, env := range p.Env {
				r.Provider.Env = append(r.Provider.Env, string(env))
			}
		}
		if e.AWS != nil {
			r.AWS = &upstream.AWS{Region: e.AWS.Region, RoleARN: e.AWS.RoleARN}
		}
		registries = append(registries, r)
		hosts = append(hosts, e.Host)
	}
	return registries, hosts
}

// cloudEnv is how the upstream client reads the environment that clouds are set
// up by; nil if it is to have nothing from a cloud.
func cloudEnv(cfg config.RegistryProxies) func(string) string {
	if !cfg.CloudCredentials {
		return nil
	}
	return os.Getenv
}
