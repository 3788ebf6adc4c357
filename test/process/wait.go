package process

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Patience bounds what takes a moment on an idle machine.
const Patience = 5 * time.Minute

// Answers is ready when a GET of url answers 200.
func Answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("make request: %w", err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		said, err := io.ReadAll(io.LimitReader(resp.Body, 2000))
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s: %s", url, resp.Status, said)
		}
		return err
	}
}

// Listens is ready when somebody accepts connections there, as net.Dial has it.
func Listens(network, addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			conn.Close()
		}
		return err
	}
}

// Ready waits until a GET of url answers 200, for at most a minute.
func (p *Process) Ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return await(ctx, p.name+" to be ready", Answers(url), p.Ended)
}

// Await calls ready until it returns nil. It fails the test when the process ends
// instead, and when that takes longer than Patience.
func (p *Process) Await(t testing.TB, what string, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := await(ctx, what, ready, p.Ended); err != nil {
		t.Fatal(err)
	}
}

// Await is Process.Await where there is no one process that it depends on.
func Await(t testing.TB, what string, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := await(ctx, what, ready, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func await(ctx context.Context, what string, ready func(context.Context) error, ended func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if err := ended(); err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w (%w)", what, err, context.Cause(ctx))
		}
	}
}
