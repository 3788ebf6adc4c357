// Package bottlerocket is Bottlerocket's settings API for tests: an HTTP server
// on a unix socket that keeps settings and transactions as the real one does
// (bottlerocket-core-kit, sources/api/apiserver), counts commits, and answers
// wrongly on request.
//
// It knows the registry settings only, and applies nothing.
package bottlerocket

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// API is the running server. The caller closes it.
type API struct {
	// Socket is the path it listens on.
	Socket string

	server *http.Server
	served sync.WaitGroup

	mu      sync.Mutex
	live    map[string]json.RawMessage            // below container-registry
	pending map[string]map[string]json.RawMessage // by transaction
	log     []string
	fault   func(w http.ResponseWriter, r *http.Request) bool
}

// Start serves on dir/api.sock, with the JSON object registry as
// settings.container-registry; empty for none.
func Start(dir, registry string) (*API, error) {
	a := &API{Socket: filepath.Join(dir, "api.sock"), pending: map[string]map[string]json.RawMessage{}}
	if registry != "" {
		if err := json.Unmarshal([]byte(registry), &a.live); err != nil {
			return nil, fmt.Errorf("read registry settings: %w", err)
		}
	}
	l, err := net.Listen("unix", a.Socket)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /os", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]string{
			"pretty-name": "Bottlerocket OS 1.56.0 (aws-k8s-1.35)", "variant-id": "aws-k8s-1.35",
			"version-id": "1.56.0", "build-id": "abcdef", "arch": "x86_64",
		})
	})
	mux.HandleFunc("GET /settings", a.get)
	mux.HandleFunc("PATCH /settings", a.patch)
	mux.HandleFunc("DELETE /tx", a.drop)
	mux.HandleFunc("POST /tx/commit_and_apply", a.commit)
	mux.HandleFunc("POST /tx/apply", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	a.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.log = append(a.log, r.Method+" "+r.URL.RequestURI())
		fault := a.fault
		a.mu.Unlock()
		if fault == nil || !fault(w, r) {
			mux.ServeHTTP(w, r)
		}
	})}
	// Ends when Close closes the listener.
	a.served.Go(func() { _ = a.server.Serve(l) })
	return a, nil
}

// Close ends the server and every request it is answering.
func (a *API) Close() {
	_ = a.server.Close()
	a.served.Wait()
}

// Break has every request pass fault first, which answers it by itself if it
// returns true; nil heals.
func (a *API) Break(fault func(w http.ResponseWriter, r *http.Request) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault = fault
}

// Requests are the requests so far, "METHOD /path?query".
func (a *API) Requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.log)
}

// Commits is how many of the requests were commits.
func (a *API) Commits() int {
	commits := slices.DeleteFunc(a.Requests(), func(r string) bool { return !strings.HasPrefix(r, "POST /tx/commit") })
	return len(commits)
}

// Registry is settings.container-registry as it is live.
func (a *API) Registry() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	raw, err := json.Marshal(a.live)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// Pending names the transactions that are neither committed nor dropped.
func (a *API) Pending() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.pending))
}

// Stage puts a value of the setting container-registry.KEY into a transaction.
func (a *API) Stage(tx, key, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pending[tx] == nil {
		a.pending[tx] = map[string]json.RawMessage{}
	}
	a.pending[tx][key] = json.RawMessage(value)
}

func (a *API) get(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer := map[string]any{}
	if len(a.live) > 0 {
		answer["container-registry"] = a.live
	}
	reply(w, http.StatusOK, answer)
}

func (a *API) patch(w http.ResponseWriter, r *http.Request) {
	var settings map[string]map[string]json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&settings); err != nil {
		http.Error(w, "Json deserialize error: "+err.Error(), http.StatusBadRequest)
		return
	}
	for section, values := range settings {
		for key, value := range values {
			if section != "container-registry" || key != "mirrors" && key != "credentials" {
				http.Error(w, "Json deserialize error: unknown field `"+key+"`", http.StatusBadRequest)
				return
			}
			a.Stage(r.URL.Query().Get("tx"), key, string(value))
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *API) drop(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tx := r.URL.Query().Get("tx")
	keys := slices.Sorted(maps.Keys(a.pending[tx]))
	delete(a.pending, tx)
	reply(w, http.StatusOK, append([]string{}, keys...))
}

// Commit makes a transaction live, as a client does by /tx/commit. It fails when
// nothing is pending.
func (a *API) Commit(tx string) error {
	_, err := a.makeLive(tx)
	return err
}

func (a *API) makeLive(tx string) (keys []string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending[tx]) == 0 {
		return nil, errors.New("tried to commit with no pending changes")
	}
	if a.live == nil {
		a.live = map[string]json.RawMessage{}
	}
	for key, value := range a.pending[tx] {
		a.live[key] = value
		keys = append(keys, "settings.container-registry."+key)
	}
	delete(a.pending, tx)
	return keys, nil
}

func (a *API) commit(w http.ResponseWriter, r *http.Request) {
	keys, err := a.makeLive(r.URL.Query().Get("tx"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	reply(w, http.StatusOK, keys)
}

func reply(w http.ResponseWriter, code int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}
