package bottlerocket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
)

// transaction is the name of the only transaction this package stages anything
// in: what others have pending is never committed along.
const transaction = "larder"

// mirrorsKey is the setting's full name.
const mirrorsKey = "settings.container-registry.mirrors"

// Mirror is an entry of settings.container-registry.mirrors.
type Mirror struct {
	// Registry is a host as in image names, or "*" for all that have no
	// entry and no credentials of their own.
	Registry string
	// Endpoints are asked before the registry itself. Bottlerocket sorts them
	// by the alphabet, whatever order they have here.
	Endpoints []string
	// rest is what newer releases keep in an entry (capabilities), and is
	// handed back as it came.
	rest map[string]json.RawMessage
}

// UnmarshalJSON reads an entry, and keeps what it does not know.
func (m *Mirror) UnmarshalJSON(raw []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return err
	}
	known := struct {
		Registry *string   `json:"registry"`
		Endpoint *[]string `json:"endpoint"`
	}{&m.Registry, &m.Endpoints}
	if err := json.Unmarshal(raw, &known); err != nil {
		return err
	}
	delete(fields, "registry")
	delete(fields, "endpoint")
	m.rest = fields
	return nil
}

// MarshalJSON writes an entry with what UnmarshalJSON kept.
func (m Mirror) MarshalJSON() ([]byte, error) {
	entry := map[string]any{"registry": m.Registry, "endpoint": append([]string{}, m.Endpoints...)}
	for name, value := range m.rest {
		entry[name] = value
	}
	return json.Marshal(entry)
}

// equal compares what two entries say, however that is written.
func (m Mirror) equal(other Mirror) bool {
	return m.Registry == other.Registry && slices.Equal(m.Endpoints, other.Endpoints) &&
		maps.EqualFunc(m.rest, other.rest, func(a, b json.RawMessage) bool {
			var left, right any
			return json.Unmarshal(a, &left) == nil && json.Unmarshal(b, &right) == nil && reflect.DeepEqual(left, right)
		})
}

// Equal reports whether two lists of entries say the same.
func Equal(a, b []Mirror) bool {
	return slices.EqualFunc(a, b, Mirror.equal)
}

// Registry is settings.container-registry, as far as it concerns mirrors.
type Registry struct {
	Mirrors []Mirror
	// Credentials names the registries there are credentials for.
	Credentials []string
}

// Registry reads the live settings. It fails with ErrNoAPI, ErrForbidden, a
// StatusError, or what is wrong with the answer.
func (c *Client) Registry(ctx context.Context) (Registry, error) {
	var answer struct {
		Settings struct {
			Mirrors     []Mirror `json:"mirrors"`
			Credentials []struct {
				Registry string `json:"registry"`
			} `json:"credentials"`
		} `json:"container-registry"`
	}
	if err := c.get(ctx, "/settings", url.Values{"prefix": {"container-registry"}}, &answer); err != nil {
		return Registry{}, fmt.Errorf("read registry settings: %w", err)
	}
	r := Registry{Mirrors: answer.Settings.Mirrors}
	for _, credentials := range answer.Settings.Credentials {
		r.Credentials = append(r.Credentials, credentials.Registry)
	}
	return r, nil
}

// SetMirrors makes mirrors the live setting, whole, and reports whether that
// took a change. When it did, Bottlerocket has rendered its files anew and has
// restarted containerd if that was running. ctx bounds all requests together.
//
// It fails with what Registry fails with, with ErrUnsupported, and with
// ErrNotKept when the settings read back are others. After an error the setting
// is the old or the new one, and nothing of ours is left pending, if the API
// still answers.
func (c *Client) SetMirrors(ctx context.Context, mirrors []Mirror) (changed bool, err error) {
	live, err := c.Registry(ctx)
	if err != nil {
		return false, err
	}
	if Equal(live.Mirrors, mirrors) {
		return false, nil
	}
	// A run that was killed may have left something staged under our name.
	if err := c.drop(ctx); err != nil {
		return false, fmt.Errorf("drop what was staged before: %w", err)
	}
	if err := c.stage(ctx, mirrors); err != nil {
		c.tidy(ctx)
		return false, err
	}
	if err := c.commit(ctx, mirrors); err != nil {
		c.tidy(ctx)
		return false, err
	}
	live, err = c.Registry(ctx)
	if err != nil {
		return true, fmt.Errorf("read back: %w", err)
	}
	if !Equal(live.Mirrors, mirrors) {
		return true, ErrNotKept
	}
	return true, nil
}

func (c *Client) stage(ctx context.Context, mirrors []Mirror) error {
	body, err := json.Marshal(map[string]any{
		"container-registry": map[string]any{"mirrors": append([]Mirror{}, mirrors...)},
	})
	if err != nil {
		return fmt.Errorf("write registry settings: %w", err)
	}
	_, err = c.do(ctx, http.MethodPatch, "/settings", url.Values{"tx": {transaction}}, body)
	if e, ok := errors.AsType[*StatusError](err); ok && (e.Code == http.StatusBadRequest || e.Code == http.StatusNotFound) {
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err != nil {
		return fmt.Errorf("stage registry settings: %w", err)
	}
	return nil
}

// commit makes what is staged live and has it applied. One request does both,
// so that being killed here cannot leave a setting that is live and applied
// nowhere. Where the answer is lost or says no, the settings tell what became
// of it; if they are the new ones, they are applied once more, since the next
// run will find nothing to do.
func (c *Client) commit(ctx context.Context, mirrors []Mirror) error {
	_, refused := c.do(ctx, http.MethodPost, "/tx/commit_and_apply", url.Values{"tx": {transaction}}, nil)
	if refused == nil {
		return nil
	}
	refused = fmt.Errorf("commit registry settings: %w", refused)
	live, err := c.Registry(ctx)
	if err != nil || !Equal(live.Mirrors, mirrors) {
		return refused
	}
	if _, err := c.do(ctx, http.MethodPost, "/tx/apply", url.Values{"keys": {mirrorsKey}}, nil); err != nil {
		return fmt.Errorf("%w; they are live now, and are applied at the next boot: %w", refused, err)
	}
	return nil
}

func (c *Client) drop(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodDelete, "/tx", url.Values{"tx": {transaction}}, nil)
	return err
}

// tidy drops what is staged after a failure, even when there is no time left
// for anything else. That it fails too tells nothing new.
func (c *Client) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	defer cancel()
	_ = c.drop(ctx)
}
