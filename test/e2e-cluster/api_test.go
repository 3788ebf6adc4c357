package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// call asks the API server as the admin and returns its answer; one that says
// no is an error.
func (c *cluster) call(method, path, contentType, body string) (string, error) {
	req, err := http.NewRequest(method, server+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: status %d: %.500s", method, path, resp.StatusCode, answer)
	}
	return string(answer), err
}

// get reads an object into out.
func (c *cluster) get(path string, out any) error {
	body, err := c.call(http.MethodGet, path, "", "")
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), out)
}

// kubectl runs kubectl as the admin, with something on its standard input, and
// returns what it said.
func (c *cluster) kubectl(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	return c.tool(t, program("kubectl"), stdin, args...)
}

// tool runs a program as the admin, in whose home directory it may write.
func (c *cluster) tool(t testing.TB, path, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"HOME=" + c.dir, "KUBECONFIG=" + filepath.Join(c.dir, "admin.kubeconfig"), "PATH=/usr/bin:/bin"}
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", path, err)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(path), strings.Join(args, " "), err, out.String())
	}
	return out.String(), err
}

// do is kubectl where it has to succeed.
func (c *cluster) do(t testing.TB, args ...string) string {
	t.Helper()
	return c.apply(t, "", args...)
}

// apply is do with something on standard input.
func (c *cluster) apply(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := c.kubectl(t, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
